"""From a run's folded journal to what the proof shows of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import MappingProxyType

from control.core.run import terminal
from evals.end_to_end.mesh import Progress, Question, Record, Stage
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

STAGES = MappingProxyType(
    {
        ev.NODE_STATE_PENDING: Stage.WAITING,
        ev.NODE_STATE_RUNNING: Stage.ENTERING,
        ev.NODE_STATE_CHECKING: Stage.CHECKING,
        ev.NODE_STATE_WAITING: Stage.ASKING,
        ev.NODE_STATE_UNCERTAIN: Stage.UNCERTAIN,
        ev.NODE_STATE_SUCCEEDED: Stage.DONE,
        ev.NODE_STATE_FAILED: Stage.FAILED,
        ev.NODE_STATE_SKIPPED: Stage.FAILED,
        ev.NODE_STATE_DENIED: Stage.DENIED,
    }
)


def progress_of(state: st.RunState) -> Progress:
    """The run as the proof shows it."""
    phase = ev.RunPhase.Name(state.phase).removeprefix("RUN_PHASE_").lower()
    return Progress(
        phase=phase,
        records={group.node.group.record_key: _record(group, state.nodes) for group in _groups(state.nodes)},
        questions=tuple(_question(asked) for asked in state.approvals if asked.state == ev.APPROVAL_STATE_PENDING),
        false_successes=state.counts.false_successes,
        model_calls=state.counts.model_calls,
        events=state.seq,
        finished=terminal(state.phase),
        succeeded=state.phase == ev.RUN_PHASE_SUCCEEDED,
        summary=state.summary or state.blocked_detail,
    )


def _groups(nodes: Iterable[st.NodeRecord]) -> list[st.NodeRecord]:
    return [node for node in nodes if node.node.group.record_key]


def _record(group: st.NodeRecord, nodes: Iterable[st.NodeRecord]) -> Record:
    steps = [node for node in nodes if node.node.parent_id == group.node.node_id]
    own = [step for step in steps if not step.node.step.probe_of]
    return Record(_stage(group, steps), _now(steps), tries=len(own[-1].attempts) if own else 0)


def _stage(group: st.NodeRecord, steps: Sequence[st.NodeRecord]) -> Stage:
    """The group's own state, but for what it sums up: a step being checked, and one that was refused."""
    states = {step.state for step in steps}
    if ev.NODE_STATE_DENIED in states:
        return Stage.DENIED
    if group.state == ev.NODE_STATE_RUNNING and ev.NODE_STATE_CHECKING in states:
        return Stage.CHECKING
    return STAGES[group.state]


def _now(steps: Sequence[st.NodeRecord]) -> str:
    """What is being done, or why it failed."""
    doing = [step.node.title for step in steps if step.state in (ev.NODE_STATE_RUNNING, ev.NODE_STATE_CHECKING)]
    failed = [step.reason for step in steps if step.state == ev.NODE_STATE_FAILED]
    return (doing or failed or [""])[-1]


def _question(asked: st.ApprovalRecord) -> Question:
    return Question(asked.approval_id, asked.action_digest, asked.summary, tuple(asked.reasons))
