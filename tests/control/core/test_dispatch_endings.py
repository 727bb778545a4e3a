"""What is said of a run when it ends."""

from __future__ import annotations

import pytest

from control.core.finish import finish
from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Simulation, group, lost, ok, records_plan, step

SUCCEEDED, FAILED, DENIED = ev.NODE_STATE_SUCCEEDED, ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED


def _run(*nodes: plan.PlanNode, **settled: tuple[ev.NodeState.ValueType, str]) -> RunFold:
    folded = RunFold()
    bodies = [
        ev.EventBody(run_created=ev.RunCreated(spec=mission.MissionSpec(goal="g"))),
        ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes)),
    ]
    for title, (state, signature) in settled.items():
        event = ev.NodeSettled(node_id=title.replace("_", " "), state=state, signature=signature, reason="so it is")
        bodies.append(ev.EventBody(node_settled=event))
    for body in bodies:
        folded.apply(ev.RunEvent(run_id="R", seq=folded.state.seq + 1, body=body))
    return folded


def test_a_run_of_which_every_step_holds_succeeds_and_counts_them() -> None:
    ended = finish(_run(step("A"), A=(SUCCEEDED, "")))
    assert (ended.phase, ended.reason, ended.summary) == (ev.RUN_PHASE_SUCCEEDED, "", "1 step done, each with evidence")
    two = finish(_run(step("A"), step("B"), A=(SUCCEEDED, ""), B=(SUCCEEDED, "")))
    assert two.summary == "2 steps done, each with evidence"


def test_false_successes_are_told() -> None:
    folded = _run(step("A"), A=(SUCCEEDED, ""))
    folded.state.counts.false_successes = 2
    assert finish(folded).summary == "1 step done, each with evidence; 2 false successes caught"
    folded.state.counts.false_successes = 1
    assert finish(folded).summary == "1 step done, each with evidence; 1 false success caught"


def test_records_are_counted_as_what_people_care_for() -> None:
    done = {f"{verb} {key}".replace(" ", "_"): (SUCCEEDED, "") for key in "XY" for verb in ("open", "fill", "save")}
    assert finish(_run(*records_plan("X", "Y"), **done)).summary == "2 records entered and seen in the application"
    done |= {title.replace("Y", "Z"): ending for title, ending in done.items()} | {"save_Y": (FAILED, "NO_EFFECT")}
    ended = finish(_run(*records_plan("X", "Y", "Z"), **done))
    assert (ended.phase, ended.reason) == (ev.RUN_PHASE_FAILED, "NO_EFFECT")
    assert ended.summary == "2 of 3 records entered: save Y: so it is"


def test_a_failure_is_told_with_the_step_that_it_began_with() -> None:
    ended = finish(_run(step("A"), step("B"), A=(FAILED, "TIMEOUT")))
    assert (ended.phase, ended.reason, ended.summary) == (ev.RUN_PHASE_FAILED, "TIMEOUT", "not done: A: so it is")


def test_a_run_that_was_only_denied_says_so() -> None:
    assert finish(_run(step("A"), A=(DENIED, "POLICY_DENIED"))).reason == "DENIED"


def test_a_failure_outweighs_what_was_denied() -> None:
    nodes = (group("G", on_failure=plan.ON_FAILURE_CONTINUE), step("A", "G"), step("B"))
    ended = finish(_run(*nodes, A=(DENIED, "POLICY_DENIED"), B=(FAILED, "TIMEOUT")))
    assert (ended.reason, ended.summary) == ("TIMEOUT", "not done: A: so it is")


def test_a_probe_that_failed_is_not_why_a_run_failed() -> None:
    probe = step("P")
    probe.step.probe_of = "A"
    assert finish(_run(step("A"), probe, P=(FAILED, "TIMEOUT"), A=(DENIED, "X"))).reason == "DENIED"


def test_a_run_without_any_plan_is_no_success() -> None:
    ended = finish(_run())
    assert (ended.phase, ended.reason, ended.summary) == (ev.RUN_PHASE_FAILED, "NOTHING_PLANNED", "not done")


@pytest.mark.parametrize(("reason", "summary"), [("enough", "enough"), ("", "cancelled by a person")])
def test_a_cancelled_run_ends_as_cancelled_whatever_was_done(reason: str, summary: str) -> None:
    folded = _run(step("A"), A=(SUCCEEDED, ""))
    folded.state.cancel_wanted, folded.state.cancel_reason = True, reason
    ended = finish(folded)
    assert (ended.phase, ended.reason, ended.summary) == (ev.RUN_PHASE_CANCELLED, "CANCELLED", summary)


def test_a_dry_run_tells_what_policy_would_say() -> None:
    skipped = ev.NODE_STATE_SKIPPED
    settled = {"A": (skipped, "DRY_RUN_ALLOW"), "B": (skipped, "DRY_RUN_ASK"), "C": (skipped, "DRY_RUN_DENY")}
    folded = _run(step("A"), step("B"), step("C"), **settled)
    folded.state.spec.dry_run = True
    ended = finish(folded)
    assert (ended.phase, ended.reason) == (ev.RUN_PHASE_SUCCEEDED, "DRY_RUN")
    assert ended.summary == "dry run: 3 steps judged, 1 would ask a person, 1 denied; nothing was touched"


def test_a_run_says_what_it_waits_for_and_from_whom() -> None:
    def ask(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.title in ("save X", "save Y") else pol.VERDICT_ALLOW

    nodes = [*records_plan("X", "Y"), step("post", "", eff.EFFECT_CLASS_ONCE)]
    simulation = Simulation(nodes, _lost_posts, ask)
    assert simulation.run() == ev.RUN_PHASE_WAITING
    assert simulation.folded.state.blocked_detail == "waiting for a person: 2 approvals and 1 uncertain step"
    simulation.answer(ev.APPROVAL_STATE_DENIED)
    simulation.append(ev.EventBody(run_unblocked=ev.RunUnblocked()))
    simulation.run()
    assert simulation.folded.state.blocked_detail == "waiting for a person: 1 approval and 1 uncertain step"


def _lost_posts(record: st.NodeRecord, _attempt: int) -> act.Outcome:
    return lost() if record.node.title == "post" else ok()


@pytest.mark.parametrize("note", ["", "too dear"])
def test_a_no_is_told_with_its_note(note: str) -> None:
    simulation = Simulation([step("pay")], _lost_posts, lambda _record: pol.VERDICT_ASK)
    simulation.run()
    simulation.append(ev.EventBody(approval_decided=_denied(simulation, note)))
    assert simulation.run() == ev.RUN_PHASE_FAILED
    pay = simulation.step("pay")
    assert (pay.reason, pay.signature) == (f"denied by ann{': ' * bool(note)}{note}", "APPROVAL_DENIED")


def _denied(simulation: Simulation, note: str) -> ev.ApprovalDecided:
    approval_id = simulation.folded.state.approvals[0].approval_id
    return ev.ApprovalDecided(approval_id=approval_id, state=ev.APPROVAL_STATE_DENIED, actor="ann", note=note)
