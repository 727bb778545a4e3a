"""What the proof shows of a run is what its journal says."""

from __future__ import annotations

import pytest

from evals.end_to_end.command import Status
from evals.end_to_end.mesh import Part, Question, Stage
from evals.end_to_end.reading import progress_of
from evals.end_to_end.skyagent_mesh import parts_of
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st


def run_of(group: ev.NodeState.ValueType, *steps: ev.NodeState.ValueType) -> st.RunState:
    state = st.RunState(phase=ev.RUN_PHASE_RUNNING, seq=7)
    state.nodes.add(node=plan.PlanNode(node_id="G", group=plan.Group(record_key="INV-1")), state=group)
    for number, step in enumerate(steps):
        node = plan.PlanNode(node_id=f"S{number}", parent_id="G", title=f"step {number}", step=plan.Step())
        state.nodes.add(node=node, state=step, reason=f"reason {number}")
    return state


DONE, RUNNING, CHECKING = ev.NODE_STATE_SUCCEEDED, ev.NODE_STATE_RUNNING, ev.NODE_STATE_CHECKING
FAILED, DENIED, PENDING = ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED, ev.NODE_STATE_PENDING
SKIPPED, WAITING, UNCERTAIN = ev.NODE_STATE_SKIPPED, ev.NODE_STATE_WAITING, ev.NODE_STATE_UNCERTAIN


@pytest.mark.parametrize(
    ("state", "stage", "detail"),
    [
        (run_of(PENDING, PENDING, PENDING), Stage.WAITING, ""),
        (run_of(RUNNING, DONE, RUNNING), Stage.ENTERING, "step 1"),
        (run_of(RUNNING, DONE, CHECKING), Stage.CHECKING, "step 1"),
        (run_of(WAITING, DONE, WAITING), Stage.ASKING, ""),
        (run_of(UNCERTAIN, DONE, UNCERTAIN), Stage.UNCERTAIN, ""),
        (run_of(DONE, DONE, DONE), Stage.DONE, ""),
        (run_of(FAILED, DONE, FAILED), Stage.FAILED, "reason 1"),
        (run_of(FAILED, DONE, DENIED), Stage.DENIED, ""),
        (run_of(SKIPPED, SKIPPED, SKIPPED), Stage.FAILED, ""),
    ],
)
def test_a_record_stands_as_its_group_does(state: st.RunState, stage: Stage, detail: str) -> None:
    record = progress_of(state).records["INV-1"]
    assert (record.stage, record.detail) == (stage, detail)


def test_every_state_of_a_node_has_a_stage() -> None:
    for state in ev.NodeState.values():
        if state != ev.NODE_STATE_UNSPECIFIED:
            assert progress_of(run_of(state)).records["INV-1"].stage in Stage


def test_tries_are_those_of_the_save_and_not_of_its_probes() -> None:
    state = run_of(RUNNING, DONE, RUNNING)
    state.nodes[2].attempts.add(attempt=1)
    state.nodes[2].attempts.add(attempt=2)
    probe = plan.PlanNode(node_id="P", parent_id="G", step=plan.Step(probe_of="S1"))
    state.nodes.add(node=probe, state=DONE).attempts.add(attempt=1)
    assert progress_of(state).records["INV-1"].tries == 2


def test_only_open_questions_are_asked() -> None:
    state = st.RunState(phase=ev.RUN_PHASE_WAITING)
    state.approvals.add(approval_id="A", action_digest="b3:1", summary="Save", reasons=["why"], state=1)
    state.approvals.add(approval_id="B", state=ev.APPROVAL_STATE_CONSUMED)
    assert progress_of(state).questions == (Question("A", "b3:1", "Save", ("why",)),)


def test_the_end_and_the_counts_are_the_runs_own() -> None:
    state = st.RunState(phase=ev.RUN_PHASE_SUCCEEDED, seq=99, summary="12 entered")
    state.counts.false_successes = 1
    state.counts.model_calls = 2
    progress = progress_of(state)
    assert (progress.phase, progress.finished, progress.succeeded) == ("succeeded", True, True)
    assert (progress.false_successes, progress.model_calls, progress.events) == (1, 2, 99)
    assert progress.summary == "12 entered"


def test_parts_are_found_by_the_names_that_status_gives_them() -> None:
    status = Status.model_validate_json(
        """{"running": true, "ready": false, "address": "http://127.0.0.1:1", "pid": 9, "parts": [
            {"name": "control-plane", "pid": 11, "state": "ready"}, {"name": "envoy", "pid": 0, "state": "restarting"},
            {"name": "browser-1", "pid": 13, "state": "ready"}],
           "owned": [{"name": "chromium", "pid": 14, "worker": "browser-1"}]}"""
    )
    assert parts_of(status) == {Part.CONTROL_PLANE: 11, Part.WORKER: 13, Part.CHROMIUM: 14}


def test_a_mesh_that_does_not_run_has_no_parts() -> None:
    assert parts_of(Status.model_validate_json('{"running": false, "ready": false, "data_dir": "/x"}')) == {}
