"""A replay makes the same decisions, and names the first that would be another one now."""

from __future__ import annotations

import pytest

from control.core import check, dispatch
from control.core.replay import Given, Replayed, first_difference, replay
from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Application, Simulation, records_plan

NOTHING = Given({}, None)


def recorded() -> list[ev.RunEvent]:
    """A run with a loss, a lie, a question and a retry; its plan was given, not made."""

    def policy(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.title == "save r2" else pol.VERDICT_ALLOW

    run = Simulation(records_plan("r1", "r2", "r3"), Application(saves=["lost before", "false"]), policy)
    run.run()
    run.answer(ev.APPROVAL_STATE_GRANTED)
    assert run.run() == ev.RUN_PHASE_SUCCEEDED
    return run.journal


def replayed(events: list[ev.RunEvent]) -> Replayed:
    return replay(events, NOTHING)


def altered(kind: str, change: dict[str, object], which: int = 0) -> tuple[int, Replayed]:
    events = recorded()
    found = [event for event in events if event.body.WhichOneof("kind") == kind][which]
    for name, value in change.items():
        setattr(getattr(found.body, kind), name, value)
    return found.seq, replayed(events)


def test_a_run_that_is_replayed_makes_the_same_decisions() -> None:
    events = recorded()
    found = replayed(events)
    assert found.difference is None, found.difference
    assert found.decided + found.taken == len(events)
    assert found.decided > 40
    assert {event.body.WhichOneof("kind") for event in events} >= {
        "group_restarted",
        "approval_requested",
        "run_blocked",
    }


@pytest.mark.parametrize(
    ("kind", "change", "detail"),
    [
        ("step_validated", {"holds": plan.HOLDS_NO}, "step_validated.holds"),
        ("group_restarted", {"restart": 2}, "group_restarted.restart"),
        ("step_intended", {"action_digest": "b3:other"}, "step_intended.action_digest"),
        ("step_intended", {"attempt": 7}, "step_intended.attempt"),
        ("run_finished", {"summary": "all is well"}, "run_finished.summary"),
        ("approval_requested", {"summary": "send it"}, "approval_requested.summary"),
        ("run_blocked", {"detail": "waiting"}, "run_blocked.detail"),
    ],
)
def test_a_decision_that_was_changed_in_the_record_is_named(kind: str, change: dict[str, object], detail: str) -> None:
    seq, found = altered(kind, change)
    assert found.difference is not None
    assert (found.difference.seq, found.difference.detail) == (seq, detail)
    assert found.difference.decided is not None
    assert found.difference.decided != found.difference.recorded


def test_a_changed_validator_is_noticed_at_the_first_event_that_it_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded()
    judge = check.judge

    def gullible(*arguments: object) -> check.Judgement:
        judged = judge(*arguments)  # pyright: ignore[reportArgumentType]
        return check.Judgement(judged.findings, plan.HOLDS_YES, absent=False)

    monkeypatch.setattr(check, "judge", gullible)
    found = replayed(events)
    first_no = next(e.seq for e in events if e.body.step_validated.holds == plan.HOLDS_NO)
    assert found.difference is not None
    assert found.difference.seq == first_no


def test_a_changed_dispatcher_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    events = recorded()

    def the_last(folded: RunFold, _group_id: str) -> st.NodeRecord:
        return folded.state.nodes[-1]

    monkeypatch.setattr(dispatch, "next_step", the_last)
    found = replayed(events)
    assert found.difference is not None
    assert found.difference.recorded.WhichOneof("kind") in ("policy_decided", "step_intended")


def test_an_event_that_nothing_called_for_is_named() -> None:
    events = recorded()
    settled = ev.EventBody(node_settled=ev.NodeSettled(node_id="r3", state=ev.NODE_STATE_SKIPPED))
    first = next(event.seq for event in events if event.body.HasField("step_intended"))
    wrong = [*events[:first], ev.RunEvent(run_id="R", seq=first + 1, epoch=1, body=settled, time=events[first].time)]
    found = replayed(wrong)
    assert found.difference is not None
    assert (found.difference.seq, found.difference.decided) == (first + 1, None)


def test_another_result_leads_to_other_decisions_and_the_first_is_named() -> None:
    events = recorded()
    found = next(e for e in events if e.body.step_finished.outcome.status == act.OUTCOME_STATUS_OK)
    found.body.step_finished.outcome.status = act.OUTCOME_STATUS_FAILED
    told = replayed(events)
    assert told.difference is not None
    assert told.difference.seq == found.seq + 1


def test_of_what_was_erased_nothing_is_said() -> None:
    events = recorded()
    last = events[-1]
    last.ClearField("body")
    last.erased = True
    found = replayed(events)
    assert (found.erased, found.difference) == (1, None)


def test_the_first_difference_is_a_path_of_fields() -> None:
    one = ev.EventBody(node_settled=ev.NodeSettled(node_id="a", reason="because"))
    other = ev.EventBody(node_settled=ev.NodeSettled(node_id="a", reason="why not"))
    assert first_difference(one, other) == "node_settled.reason"
    assert first_difference(one, one) == ""
