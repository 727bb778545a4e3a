"""Escrow beside a model made of dictionaries: whatever is asked in whatever order, no budget is ever overdrawn."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from control.budgets import Ask, BudgetKey, Escrow, Granted, Refused, TopUp
from infra.clock import ManualClock
from infra.errors import SkyError
from tests.control.journal.world import database

TENANT, KIND = "acme", "steps"
MISSIONS = ("M1", "M2")


@dataclass
class Limit:
    """A budget as the model knows it."""

    limit: int
    granted: int = 0
    returned: int = 0
    spent: int = 0

    @property
    def left(self) -> int:
        return self.limit - self.granted + self.returned


@dataclass
class Run:
    """What the model knows of a run: its grants by id, and whether it has given back what it left."""

    mission: str
    from_mission: bool
    from_tenant: bool
    grants: dict[str, int] = field(default_factory=dict[str, int])
    settled: bool = False

    @property
    def budgets(self) -> list[str]:
        return ([""] if self.from_tenant else []) + ([self.mission] if self.from_mission else [])


class EscrowMachine(RuleBasedStateMachine):
    """Runs real escrow on a real database; every rule compares its answer with the model's."""

    @staticmethod
    def place(folder: Path) -> Path | str:
        return folder / "journal.db"

    runs = Bundle("runs")

    @initialize(tenant=st.integers(0, 60), missions=st.tuples(st.integers(0, 40), st.integers(0, 40)))
    def open(self, tenant: int, missions: tuple[int, int]) -> None:
        self.runner = asyncio.Runner()
        self.folder = Path(mkdtemp())
        self.stack = AsyncExitStack()
        opened = database(self.place(self.folder), "NORMAL")
        self.escrow = Escrow(self.runner.run(self.stack.enter_async_context(opened)), ManualClock())
        self.model = {"": Limit(tenant), **{name: Limit(at) for name, at in zip(MISSIONS, missions, strict=True)}}
        self.made: dict[str, Run] = {}
        self.raised: set[tuple[str, int]] = set()
        for name, budget in self.model.items():
            self.runner.run(self.escrow.set_limit(self.key(name), budget.limit, "ann"))

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.runner.run(self.stack.aclose())
            self.runner.close()
            rmtree(self.folder)

    def key(self, mission: str) -> BudgetKey:
        return BudgetKey(TENANT, KIND, mission)

    def asked(self, run_id: str, grant: str, need: int, want: int) -> Ask:
        run = self.made[run_id]
        drawn = {"from_mission": run.from_mission, "from_tenant": run.from_tenant}
        return Ask(f"{run_id}:{grant}", run_id, TENANT, run.mission, KIND, need=need, want=want, **drawn)

    @rule(
        target=runs,
        mission=st.sampled_from(MISSIONS),
        drawn=st.sampled_from(((True, True), (True, False), (False, True))),
    )
    def start(self, mission: str, drawn: tuple[bool, bool]) -> str:
        run_id = f"R{len(self.made):025}"
        self.made[run_id] = Run(mission, *drawn)
        return run_id

    @rule(run_id=runs, number=st.integers(1, 4), need=st.integers(1, 12), more=st.integers(0, 20))
    def ask(self, run_id: str, number: int, need: int, more: int) -> None:
        run, asked = self.made[run_id], self.asked(run_id, str(number), need, need + more)
        left = min(self.model[name].left for name in run.budgets)
        if asked.grant_id in run.grants:  # long ago or half done: it is the same grant
            assert self.runner.run(self.escrow.ask(asked)) == Granted(asked.grant_id, run.grants[asked.grant_id])
        elif left < need:
            answer = self.runner.run(self.escrow.ask(asked))
            assert isinstance(answer, Refused)
            assert answer.left == left
        elif run.settled:
            with pytest.raises(SkyError, match="RUN_ENDED"):
                self.runner.run(self.escrow.ask(asked))
        else:
            granted = self.runner.run(self.escrow.ask(asked))
            assert isinstance(granted, Granted)
            assert need <= granted.amount <= min(need + more, left)
            self.take(run, asked.grant_id, granted.amount)

    @rule(run_id=runs, number=st.integers(1, 3), amount=st.integers(1, 15))
    def top_up(self, run_id: str, number: int, amount: int) -> None:
        run, asked = self.made[run_id], self.asked(run_id, f"person {number}", amount, amount)
        lacks = run.from_tenant and self.model[""].left < amount
        known = run.grants.get(asked.grant_id)
        expected = "REQUEST_ID_REUSED" if known not in (None, amount) else None
        if known is None:
            expected = "TENANT_BUDGET_EXHAUSTED" if lacks else "RUN_ENDED" if run.settled else None
        refused = self.refused(self.escrow.top_up(TopUp(asked, "bob")))
        assert refused == expected
        if refused is None and known is None:
            if run.from_mission:
                self.model[run.mission].limit += amount
            self.take(run, asked.grant_id, amount)

    def take(self, run: Run, grant_id: str, amount: int) -> None:
        run.grants[grant_id] = amount
        for name in run.budgets:
            self.model[name].granted += amount

    @rule(run_id=runs, used=st.integers(0, 60))
    def end(self, run_id: str, used: int) -> None:
        """Also again, with another figure: only the first counts."""
        run, held = self.made[run_id], self.runner.run(self.escrow.settle(run_id, {KIND: used}))
        if run.settled or not run.grants:
            assert held == []
            return
        granted = sum(run.grants.values())
        spent = min(used, granted)
        assert [(one.granted, one.spent, one.settled) for one in held] == [(granted, spent, True)]
        run.settled = True
        for name in run.budgets:
            self.model[name].returned += granted - spent
            self.model[name].spent += spent

    @rule(name=st.sampled_from(("", *MISSIONS)), limit=st.integers(0, 80))
    def set_limit(self, name: str, limit: int) -> None:
        budget = self.model[name]
        too_low = limit < budget.granted - budget.returned
        refused = self.refused(self.escrow.set_limit(self.key(name), limit, "ann"))
        assert refused == ("BUDGET_IN_USE" if too_low else None)
        budget.limit = budget.limit if too_low else limit

    @rule(name=st.sampled_from(MISSIONS), request=st.integers(1, 3), amount=st.just(5))
    def raise_mission(self, name: str, request: int, amount: int) -> None:
        before = self.model[name].limit
        raised = self.runner.run(self.escrow.raise_mission(self.key(name), amount, f"{name} {request}", "ann"))
        known = (name, request) in self.raised
        self.raised.add((name, request))
        self.model[name].limit = before + (0 if known else amount)
        assert raised.limit_amount == self.model[name].limit

    def refused(self, doing: Coroutine[object, object, object]) -> str | None:
        """Why it was refused; nothing when it was done."""
        try:
            self.runner.run(doing)
        except SkyError as refused:
            return refused.reason
        return None

    @invariant()
    def both_say_the_same_and_nothing_is_overdrawn(self) -> None:
        for name, budget in getattr(self, "model", {}).items():
            found = self.runner.run(self.escrow.find(self.key(name)))
            shown = (found.limit_amount, found.granted, found.returned, found.spent)
            assert shown == (budget.limit, budget.granted, budget.returned, budget.spent)
            held = sum(
                sum(run.grants.values()) for run in self.made.values() if not run.settled and name in run.budgets
            )
            assert found.allotted == held
            assert found.allotted + found.spent <= found.limit_amount


@pytest.mark.timeout(120)
def test_escrow_on_sqlite_equals_its_model() -> None:
    run_state_machine_as_test(EscrowMachine, settings=settings(max_examples=15, stateful_step_count=25, deadline=None))


@pytest.mark.timeout(120)
def test_escrow_on_postgres_equals_its_model(new_database: Callable[[], str]) -> None:
    class OnPostgres(EscrowMachine):
        @staticmethod
        def place(folder: Path) -> Path | str:
            return new_database()

    run_state_machine_as_test(OnPostgres, settings=settings(max_examples=5, stateful_step_count=25, deadline=None))
