"""A run that has used up what it may use stands still, says what is missing, and goes on once it has more."""

from __future__ import annotations

import pytest

from control.core.budget import amount, lacking, limits_in_force
from control.core.inbox import items
from control.core.meters import MONEY, STEPS, TOKENS, WALL_TIME
from control.core.moves import Attempt, Draw, Wait
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.core.simulation import Application, Simulation, records_plan


def simulated(**limits: int) -> Simulation:
    run = Simulation(records_plan("r1"), Application())
    run.folded.state.spec.limits.CopyFrom(mission.Limits(**limits))  # pyright: ignore[reportArgumentType]
    return run


def more(run: Simulation, kind: str, units: int) -> None:
    budget = cmd.BudgetCommand(grant_id=f"{kind} {run.folded.state.seq}", kind=kind, amount=units)
    run.append(ev.EventBody(command_applied=ev.CommandApplied(command=cmd.Command(budget=budget))))


def granted(run: Simulation, kind: str, units: int) -> None:
    told = ev.BudgetGranted(grant_id=f"{kind} {run.folded.state.seq}", kind=kind, amount=units)
    run.append(ev.EventBody(budget_granted=told))


def bound(kind: str, **drawn: bool) -> ev.EventBody:
    return ev.EventBody(run_budgeted=ev.RunBudgeted(draws=[ev.Draw(kind=kind, **drawn)]))


def test_a_run_stops_at_its_own_limit_names_it_and_goes_on_by_itself_after_a_top_up() -> None:
    run = simulated(max_steps=2)
    assert run.run() == ev.RUN_PHASE_WAITING
    state = run.folded.state
    assert (state.blocked_reason, state.counts.attempts, state.counts.open_intents) == ("BUDGET_EXHAUSTED", 2, 0)
    assert "may use 2 steps and lacks 1 step" in state.blocked_detail
    (item,) = items(run.folded)
    assert item.answers == ["skyagent runs topup R --steps 10"]
    more(run, STEPS, 50)
    assert run.run() == ev.RUN_PHASE_SUCCEEDED
    assert run.kinds().count("run_blocked") == run.kinds().count("run_unblocked") == 1


def test_a_run_that_draws_from_a_budget_asks_for_what_it_was_not_granted_and_for_nothing_else() -> None:
    run = simulated(max_steps=2)
    run.append(bound(STEPS, from_mission=True))
    while not isinstance(move := run.move(), Draw):
        run.run_one()
    assert move == Draw(STEPS, 1)
    granted(run, STEPS, 3)
    while not isinstance(move := run.move(), Draw):
        run.run_one()
    assert run.folded.state.counts.attempts == 3  # its mission's limit is the budget's business
    granted(run, STEPS, 50)
    assert run.run() == ev.RUN_PHASE_SUCCEEDED


def test_a_run_that_draws_from_its_tenant_alone_is_also_bounded_by_itself() -> None:
    run = simulated(max_steps=2)
    run.append(bound(STEPS, from_tenant=True))
    granted(run, STEPS, 50)
    assert run.run() == ev.RUN_PHASE_WAITING
    assert "this run's own limit of steps" in run.folded.state.blocked_detail


def test_a_dry_run_uses_nothing_up() -> None:
    run = simulated(max_steps=1)
    run.folded.state.spec.dry_run = True
    run.folded.state.counts.attempts = 5
    while not isinstance(move := run.move(), Attempt):
        run.run_one()
    assert move.number == 1


def test_time_that_is_used_up_stops_what_would_begin() -> None:
    run = simulated()
    run.folded.state.spec.limits.max_wall_time.FromSeconds(60)
    while not isinstance(run.move(), Attempt):
        run.run_one()
    run.now_ms += 61_000
    run.run_one()
    assert run.folded.state.blocked_reason == "BUDGET_EXHAUSTED"
    assert "limit of time is used up: it may use 60 s" in run.folded.state.blocked_detail
    assert isinstance(run.move(), Wait)
    more(run, WALL_TIME, 600_000)
    assert run.run() == ev.RUN_PHASE_SUCCEEDED


def test_a_paused_or_cancelled_run_is_not_held_up_by_its_budget() -> None:
    run = simulated(max_steps=2)
    run.run()
    cancel = cmd.Command(cancel=cmd.CancelCommand(reason="enough"))
    run.append(ev.EventBody(command_applied=ev.CommandApplied(command=cancel)))
    assert run.run() == ev.RUN_PHASE_CANCELLED


@pytest.mark.parametrize(("need", "missing"), [(400, 0), (401, 1), (1_000, 600)])
def test_a_model_call_needs_room_for_its_whole_reservation(need: int, missing: int) -> None:
    run = simulated(max_cost_microusd=1_000)
    run.folded.state.counts.cost_microusd = 600
    lacks = lacking(run.folded, MONEY, need, run.now_ms)
    assert (lacks.missing if lacks else 0) == missing


def test_policies_look_at_the_limits_in_force() -> None:
    run = simulated(max_steps=2, max_tokens=5)
    assert limits_in_force(run.folded.state) is None
    more(run, STEPS, 3)
    assert limits_in_force(run.folded.state) == mission.Limits(max_steps=5, max_tokens=5)


def test_amounts_are_told_in_the_words_of_people() -> None:
    told = [
        amount(*each) for each in ((MONEY, 1_500_000), (MONEY, 1), (WALL_TIME, 90_500), (STEPS, 1), (TOKENS, 2_000))
    ]
    assert told == ["$1.50", "$0.000001", "90.5 s", "1 step", "2,000 tokens"]


@pytest.mark.parametrize(
    ("drawn", "answers"),
    [
        ({"from_tenant": True}, ["skyagent budgets set steps LIMIT"]),
        ({"from_mission": True}, ["skyagent runs topup R --steps 10"]),
        (
            {"from_mission": True, "from_tenant": True},
            ["skyagent runs topup R --steps 10", "skyagent budgets set steps LIMIT"],
        ),
    ],
)
def test_the_inbox_names_the_command_that_gives_more_of_the_budget_that_is_used_up(
    drawn: dict[str, bool], answers: list[str]
) -> None:
    run = simulated()
    run.append(bound(STEPS, **drawn))
    run.append(ev.EventBody(run_blocked=ev.RunBlocked(reason="BUDGET_EXHAUSTED")))
    (item,) = items(run.folded)
    assert list(item.answers) == answers
