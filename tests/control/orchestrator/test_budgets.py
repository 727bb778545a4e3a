"""Runs that draw from budgets: granted as they go, waiting when there is nothing left, giving back what they leave."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control.budgets import Ask, Budget, BudgetKey, Escrow, Granted, shared_escrow
from control.core.meters import STEPS, meter
from control.core.run import FOLD_VERSION, terminal
from control.journal import Node
from control.orchestrator.drawing import Returns
from control.orchestrator.ledger import Ledger
from infra.errors import Precondition
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane, settings_in, worker

TENANTS = BudgetKey("default", STEPS)
DRAWS = (ev.Draw(kind=STEPS, from_tenant=True),)


@asynccontextmanager
async def mesh(folder: Path, limit: int) -> AsyncGenerator[tuple[ControlPlane, Escrow]]:
    """A control plane with a worker, whose tenant may take so many steps."""
    settings = settings_in(folder)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        escrow = await plane.runtime.shared(shared_escrow)
        await escrow.set_limit(TENANTS, limit, "ann")
        yield plane, escrow


async def returned(escrow: Escrow, held: int = 0) -> Budget:
    """The budget once runs hold no more than that of it."""
    async with asyncio.timeout(20):
        while (budget := await escrow.find(TENANTS)).allotted > held:
            await CLOCK.sleep(0.02)
    return budget


def asked(run_id: str, number: int, *, want: int) -> Ask:
    """What the owner of a run asks for its grant of that number."""
    drawn = {"from_mission": False, "from_tenant": True}
    return Ask(f"{run_id}:{STEPS}:{number}", run_id, "default", "M", STEPS, need=1, want=want, **drawn)


def exhausted(state: st.RunState) -> bool:
    return state.blocked_reason == "BUDGET_EXHAUSTED"


async def test_a_run_draws_as_it_goes_and_gives_back_what_it_leaves(tmp_path: Path) -> None:
    async with mesh(tmp_path, 60) as (plane, escrow):
        run_id = await plane.start(draws=DRAWS, steps="35")
        state = await plane.until_ended(run_id)
        assert state.phase == ev.RUN_PHASE_SUCCEEDED
        found = meter(state, STEPS)
        assert found is not None
        assert (found.spent, found.reserved, found.allotted) == (35, 0, 45)  # half of what was left, twice
        budget = await returned(escrow)
        assert (budget.spent, budget.left, budget.returned) == (35, 25, 10)


async def test_a_run_whose_budget_is_used_up_waits_names_it_and_goes_on_by_itself(tmp_path: Path) -> None:
    async with mesh(tmp_path, 5) as (plane, escrow):
        run_id = await plane.start(draws=DRAWS, steps="20")
        state = await plane.until_state(run_id, exhausted)
        assert (state.phase, state.counts.attempts) == (ev.RUN_PHASE_WAITING, 5)
        told = "the tenant's budget of steps is used up: 0 of 5 steps are left, the run lacks 1 step"
        assert told in state.blocked_detail
        await escrow.set_limit(TENANTS, 100, "ann")
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
        assert (await returned(escrow)).spent == 20


async def test_runs_that_share_a_budget_never_use_more_than_it_has_and_all_end_once_it_has_enough(
    tmp_path: Path,
) -> None:
    async with mesh(tmp_path, 50) as (plane, escrow):
        runs = [await plane.start(draws=DRAWS, steps="20") for _ in range(6)]
        states = await asyncio.gather(
            *(plane.until_state(run, lambda state: exhausted(state) or terminal(state.phase)) for run in runs)
        )
        assert any(map(exhausted, states))
        attempts = sum([(await plane.state(run)).counts.attempts for run in runs])
        budget = await escrow.find(TENANTS)
        assert attempts <= budget.allotted + budget.spent <= 50
        await escrow.set_limit(TENANTS, 500, "ann")
        assert {(await plane.until_ended(run)).phase for run in runs} == {ev.RUN_PHASE_SUCCEEDED}
        assert (await returned(escrow)).spent == 120


async def test_without_budgets_a_run_has_the_events_that_it_always_had(tmp_path: Path) -> None:
    async with mesh(tmp_path, 5) as (plane, escrow):
        run_id = await plane.start(steps="8")
        state = await plane.until_ended(run_id)
        assert (state.phase, list(state.meters)) == (ev.RUN_PHASE_SUCCEEDED, [])
        assert not {"run_budgeted", "budget_granted"} & set(await plane.kinds(run_id))
        assert (await escrow.find(TENANTS)).granted == 0


async def test_a_grant_whose_run_never_heard_of_it_is_the_one_that_its_next_owner_gets(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        escrow = await plane.runtime.shared(shared_escrow)
        await escrow.set_limit(TENANTS, 40, "ann")
        run_id = await plane.start(draws=DRAWS, steps="10")
        blocked = asyncio.create_task(plane.until(run_id, "run_blocked", within=30))  # without a worker nothing goes on
        granted = await escrow.ask(asked(run_id, 1, want=30))  # … and its owner was killed before it told
        assert isinstance(granted, Granted)
        async with worker(settings, plane.runtime.address):
            state = await plane.until_ended(run_id)
        blocked.cancel()
        found = meter(state, STEPS)
        assert found is not None
        assert (found.allotted, found.spent) == (granted.amount, 10)
        assert list(state.grant_ids) == [granted.grant_id]
        assert (await returned(escrow)).granted == granted.amount


async def test_what_a_dead_owner_did_not_give_back_comes_back_once_however_many_look(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings, ()) as plane:  # nobody owns runs but this test
        escrow = await plane.runtime.shared(shared_escrow)
        await escrow.set_limit(TENANTS, 40, "ann")
        run_id = await plane.start(draws=DRAWS)
        head, *_ = await plane.journal.claim(Node("test", IDS.uuid()), fold_version=FOLD_VERSION, limit=1)
        ledger = Ledger(plane.journal, CLOCK, IDS, head)
        await ledger.load()
        for number in (1, 2):  # the second one never reached the run
            granted = await escrow.ask(asked(run_id, number, want=10))
            assert isinstance(granted, Granted)
        told = ev.BudgetGranted(grant_id=f"{run_id}:steps:1", kind=STEPS, amount=10)
        await ledger.commit([ev.EventBody(budget_granted=told)])
        assert await escrow.unsettled() == []
        await ledger.commit([ev.EventBody(run_finished=ev.RunFinished(phase=ev.RUN_PHASE_FAILED))])
        assert await escrow.unsettled() == [run_id]
        await asyncio.gather(*(Returns(plane.journal, escrow, CLOCK).look() for _ in range(5)))
        budget = await escrow.find(TENANTS)
        assert (budget.granted, budget.returned, budget.left) == (20, 20, 40)
        assert await escrow.unsettled() == []


async def test_an_allotment_that_was_given_back_is_granted_no_more(tmp_path: Path) -> None:
    async with mesh(tmp_path, 30) as (plane, escrow):
        run_id = await plane.start(draws=DRAWS, steps="2")
        await plane.until_ended(run_id)
        await returned(escrow)
        with pytest.raises(Precondition, match="RUN_ENDED"):
            await escrow.ask(asked(run_id, 9, want=3))
        assert (await escrow.find(TENANTS)).left == 28
