"""What a run has used, folded: whatever happens in whatever order, a dictionary says the same."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.meters import MONEY, STEPS, TOKENS, WALL_TIME, meter
from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as state

PLAN = [plan.PlanNode(node_id="S", step=plan.Step(action=act.Action(noop=act.NoopAction())))]


@dataclass
class Journal:
    """A run that is folded as it is written; time passes only when it is told to."""

    folded: RunFold = field(default_factory=RunFold)
    now_ms: int = 1_700_000_000_000

    def add(self, **kind: object) -> None:
        event = ev.RunEvent(run_id="R", seq=self.folded.state.seq + 1, epoch=1)
        event.body.CopyFrom(ev.EventBody(**kind))  # pyright: ignore[reportArgumentType]
        event.time.FromMilliseconds(self.now_ms)
        self.folded.apply(event)

    def meter(self, kind: str) -> state.Meter:
        found = meter(self.folded.state, kind)
        assert found is not None
        return found


def begun(*kinds: str, fold_version: int = 2) -> Journal:
    journal = Journal()
    journal.add(run_created=ev.RunCreated(fold_version=fold_version))
    journal.add(run_budgeted=ev.RunBudgeted(draws=[ev.Draw(kind=kind, from_tenant=True) for kind in kinds]))
    journal.add(owner_changed=ev.OwnerChanged(node_id="node-1"))
    journal.add(plan_extended=ev.PlanExtended(nodes=PLAN))
    return journal


amounts = st.integers(0, 1_000)
calls = st.tuples(st.sampled_from("abcd"), amounts, amounts)
ends = st.tuples(st.sampled_from("abcd"), amounts, amounts, st.booleans())


@given(st.lists(st.one_of(calls, ends), max_size=40), st.booleans())
def test_calls_reserve_once_and_settle_once_and_unknown_cost_settles_at_the_full_reservation(
    happened: list[tuple[str, int, int] | tuple[str, int, int, bool]],
    finishes: bool,  # noqa: FBT001 (drawn by hypothesis)
) -> None:
    journal = begun(MONEY, TOKENS)
    under_way: dict[str, tuple[int, int]] = {}
    money = tokens = cost = 0
    for what in happened:
        if len(what) == 3:
            call_id, microusd, count = what
            intended = ev.ModelCallIntended(call_id=call_id, reserved_microusd=microusd, reserved_tokens=count)
            journal.add(model_call_intended=intended)
            under_way.setdefault(call_id, (microusd, count))
            continue
        call_id, microusd, count, unknown = what
        done = ev.ModelCallFinished(call_id=call_id, cost_microusd=microusd, output_tokens=count, cost_unknown=unknown)
        journal.add(model_call_finished=done)
        reserved = under_way.pop(call_id, None)
        used = (microusd, count) if reserved is None or not unknown else reserved
        cost += used[0]
        if reserved is not None:
            money, tokens = money + used[0], tokens + used[1]
    if finishes:
        journal.add(run_finished=ev.RunFinished(phase=ev.RUN_PHASE_FAILED))
        money, tokens = (had + sum(call[at] for call in under_way.values()) for at, had in ((0, money), (1, tokens)))
        under_way.clear()
    assert [call.call_id for call in journal.folded.state.calls] == list(under_way)
    assert journal.meter(MONEY).spent == money
    assert journal.meter(MONEY).reserved == sum(microusd for microusd, _ in under_way.values())
    assert (journal.meter(TOKENS).spent, journal.meter(TOKENS).reserved) == (
        tokens,
        sum(count for _, count in under_way.values()),
    )
    assert journal.folded.state.counts.cost_microusd == cost


def test_a_journal_of_an_earlier_fold_knows_no_calls_that_are_under_way() -> None:
    journal = begun(MONEY, fold_version=1)
    journal.add(model_call_intended=ev.ModelCallIntended(call_id="a", reserved_microusd=7))
    journal.add(model_call_finished=ev.ModelCallFinished(call_id="a", cost_microusd=5))
    assert (list(journal.folded.state.calls), journal.folded.state.counts.cost_microusd) == ([], 5)


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from((STEPS, "else")), amounts, st.booleans()), max_size=20)
)
def test_a_grant_counts_once_whatever_else_it_says_the_second_time(grants: list[tuple[str, str, int, bool]]) -> None:
    journal = begun(STEPS)
    counted: dict[str, tuple[int, bool]] = {}
    for grant_id, kind, units, top_up in grants:
        told = ev.BudgetGranted(grant_id=grant_id, kind=kind, amount=units, top_up=top_up)
        journal.add(budget_granted=told)
        if kind == STEPS:
            counted.setdefault(grant_id, (units, top_up))
    found = journal.meter(STEPS)
    assert found.allotted == sum(units for units, _ in counted.values())
    assert found.topped_up == sum(units for units, top_up in counted.values() if top_up)


@given(st.lists(st.sampled_from(("intended", "finished", "withdrawn", "uncertain")), max_size=30))
def test_a_step_is_reserved_while_it_is_open_then_spent_or_given_back(happened: list[str]) -> None:
    journal = begun(STEPS)
    attempt = spent = is_open = 0
    for what in happened:
        if what == "intended" and not is_open:
            attempt, is_open = attempt + 1, 1
            journal.add(step_intended=ev.StepIntended(step_id="S", attempt=attempt))
        elif what == "finished" and is_open:
            is_open, spent = 0, spent + 1
            journal.add(step_finished=ev.StepFinished(step_id="S", attempt=attempt))
        elif what == "withdrawn" and is_open:
            is_open = 0
            journal.add(step_withdrawn=ev.StepWithdrawn(step_id="S", attempt=attempt))
        elif what == "uncertain" and is_open:
            is_open, spent = 0, spent + 1
            journal.add(step_uncertain=ev.StepUncertain(step_id="S", attempt=attempt))
        assert (journal.meter(STEPS).reserved, journal.meter(STEPS).spent) == (is_open, spent)


def test_a_meter_that_begins_late_begins_with_what_was_used_before() -> None:
    journal = begun()
    journal.add(step_intended=ev.StepIntended(step_id="S", attempt=1))
    journal.add(step_finished=ev.StepFinished(step_id="S", attempt=1))
    journal.add(step_intended=ev.StepIntended(step_id="S", attempt=2))
    more = cmd.Command(budget=cmd.BudgetCommand(grant_id="g", kind=STEPS, amount=9))
    journal.add(command_applied=ev.CommandApplied(command_id="c", command=more))
    found = journal.meter(STEPS)
    assert (found.spent, found.reserved, found.topped_up, found.allotted) == (1, 1, 9, 0)


@pytest.mark.parametrize("jump_ms", [-3_600_000, 3_600_000])
def test_of_time_only_what_passed_under_one_owner_counts_and_never_backwards(jump_ms: int) -> None:
    journal = begun(WALL_TIME)
    journal.now_ms += 2_000
    journal.add(policy_decided=ev.PolicyDecided(step_id="S", attempt=1))
    journal.now_ms += jump_ms  # the next owner's clock is another one
    journal.add(owner_changed=ev.OwnerChanged(node_id="node-2"))
    journal.now_ms += 500
    journal.add(policy_decided=ev.PolicyDecided(step_id="S", attempt=1))
    assert journal.meter(WALL_TIME).spent == 2_500


def test_time_in_which_a_run_stands_still_for_a_person_is_not_its_own() -> None:
    journal = begun(WALL_TIME)
    for kind in ("pause", "resume"):
        journal.now_ms += 1_000
        command = cmd.Command(**{kind: {}})  # pyright: ignore[reportArgumentType]
        journal.add(command_applied=ev.CommandApplied(command=command))
    journal.now_ms += 1_000
    journal.add(run_blocked=ev.RunBlocked(reason="BUDGET_EXHAUSTED"))
    assert journal.folded.state.phase == ev.RUN_PHASE_WAITING
    journal.now_ms += 1_000
    journal.add(run_unblocked=ev.RunUnblocked())
    assert journal.meter(WALL_TIME).spent == 2_000
