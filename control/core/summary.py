"""What a list shows of a run, and the digest that names its state."""

from control.core.run import RunFold
from infra.digest import digest_message
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1 import state_pb2 as st


def summary(state: st.RunState, current_step: str = "") -> api.RunSummary:
    """A run as it stands in a list; its size does not grow with the run."""
    return api.RunSummary(
        run_id=state.run_id,
        mission_id=state.mission_id,
        goal=state.goal or state.spec.goal,
        template=state.spec.template,
        phase=state.phase,
        current_step=current_step,
        create_time=state.create_time,
        update_time=state.update_time,
        finish_time=state.finish_time if state.HasField("finish_time") else None,
        waiting_for_person=waiting_for_person(state),
        counts=state.counts,
        blocked_reason=state.blocked_reason,
        dry_run=state.spec.dry_run,
        summary=state.summary,
        parent_run_id=state.parent.run_id,
        meters=state.meters,
        blocked_detail=state.blocked_detail,
    )


def waiting_for_person(state: st.RunState) -> int:
    """How many questions only a person can answer: open approvals and uncertain steps."""
    pending = sum(approval.state == ev.APPROVAL_STATE_PENDING for approval in state.approvals)
    return pending + state.counts.uncertain


def current_step(folded: RunFold) -> str:
    """What the run is doing, as "group: step"; empty when nothing is under way."""
    path: list[str] = []
    active = folded.latest_under_way("")
    while active is not None:
        path.append(active.node.title)
        active = folded.latest_under_way(active.node.node_id)
    return ": ".join(path[-2:])


def state_digest(state: st.RunState) -> str:
    """Names a state: "b3:" and the BLAKE3 of its deterministic serialization."""
    return digest_message(state)
