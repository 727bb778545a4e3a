"""Which move comes next in a run: a pure function of its state, the outcomes that it names, and the time."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.budget import exhausted, shortage
from control.core.check import Checks
from control.core.finish import ending, finish
from control.core.moments import ms_of
from control.core.moves import Attempt, Draw, Move, OwnStep, Plan, Record, Wait
from control.core.retry import restartable, restarted
from control.core.run import BUDGET_EXHAUSTED, LOG_BEHIND, TERMINAL, WAITING_FOR_PERSON, RunFold
from control.core.tree import ENDED
from skyagent.execution.v1 import action_pb2 as act
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st


def next_move(folded: RunFold, checks: Checks, now_ms: int) -> Move:
    """Chooses the next move.

    Steps of a run go one after another. A record that waits for a person is parked and the independent ones after it
    go on. Nothing is intended while a pause or a cancellation is wanted, after the deadline, or while one is open.
    """
    state = folded.state
    if state.phase in TERMINAL:
        return Wait()
    ends = ending(state, now_ms)
    if state.blocked_reason == LOG_BEHIND and not ends:
        return Wait()
    told = _denied(folded) or _set_up(folded, checks, now_ms) or _check(folded, folded.checking(), checks, now_ms)
    if isinstance(told, Record):
        return told
    if state.counts.open_intents or (state.pause_wanted and not ends):
        return Wait()
    if ends:
        return finish(folded, now_ms)
    return told or _step(folded, now_ms) or _last(folded)


def _set_up(folded: RunFold, checks: Checks, now_ms: int) -> Move | None:
    """What a fork must do again before anything can be asked of the application, such as signing in."""
    for group_id in folded.state.setup_groups:
        if folded.node(group_id).state not in ENDED:
            below = {record.node.node_id for record in folded.descendants(group_id)}
            checking = [record for record in folded.checking() if record.node.node_id in below]
            told, record = _check(folded, checking, checks, now_ms), next_step(folded, group_id)
            return told or (_start(folded, record, now_ms) if record else None)
    return None


def _check(folded: RunFold, checking: Sequence[st.NodeRecord], checks: Checks, now_ms: int) -> Move | None:
    """What the first step that is being checked needs. One whose probe waits for a person is parked."""
    for record in checking:
        if record.node.step.probe_of:
            return Record(checks.probe(folded, record, now_ms))
        needed = checks.step(folded, record, now_ms)
        if isinstance(needed, tuple):
            return Record(needed)
        if needed is not None:
            return _start(folded, needed, now_ms)
    return None


def _denied(folded: RunFold) -> Record | None:
    """Steps whose question was answered with no."""
    events: list[ev.EventBody] = []
    for approval in folded.last_questions():
        record = folded.node(approval.step_id)
        if record.state == ev.NODE_STATE_WAITING:
            events += _refusal(record, approval)
    return Record(tuple(events)) if events else None


def _refusal(record: st.NodeRecord, approval: st.ApprovalRecord) -> list[ev.EventBody]:
    if approval.state not in (ev.APPROVAL_STATE_DENIED, ev.APPROVAL_STATE_EXPIRED):
        return []
    by = f"denied by {approval.actor}" if approval.state == ev.APPROVAL_STATE_DENIED else "nobody answered in time"
    settled = ev.NodeSettled(node_id=record.node.node_id, state=ev.NODE_STATE_DENIED, signature="APPROVAL_DENIED")
    settled.reason = f"{by}: {approval.note}" if approval.note else by
    return [ev.EventBody(node_settled=settled)]


def _step(folded: RunFold, now_ms: int) -> Move | None:
    """The next step that may be tried, restarting its group first when its page is not the one it was planned for."""
    record = _in_hand(folded) or next_step(folded, "")
    if record is None:
        return None
    group = restartable(folded, record)
    approval = granted_approval(folded, record)
    if group and not _continues(folded, group, approval):
        reason = "approved: the form is filled in afresh" if approval else "the page has moved on since"
        return Record((restarted(group, reason, now_ms, counted=False),))
    return _start(folded, record, now_ms)


def _in_hand(folded: RunFold) -> st.NodeRecord | None:
    """The next step of the record that is being worked on, so that an answered question does not interrupt it."""
    group = restartable(folded, folded.last_intended) if folded.last_intended else None
    if group is None or group.state not in (ev.NODE_STATE_PENDING, ev.NODE_STATE_RUNNING):
        return None
    return next_step(folded, group.node.node_id)


def _start(folded: RunFold, record: st.NodeRecord, now_ms: int) -> Move:
    group = restartable(folded, record)
    until = max(ms_of(record.not_before), ms_of(group.not_before) if group else 0)
    if until > now_ms:
        return Wait(until)
    if record.node.step.control:
        return OwnStep(record)
    return _unpaid(folded, now_ms) or Attempt(record, next_attempt(record), granted_approval(folded, record))


def _unpaid(folded: RunFold, now_ms: int) -> Move | None:
    """What must come before a step that the run cannot pay for; nothing when it can, or when it would touch nothing."""
    state = folded.state
    lacks = None if state.spec.dry_run else shortage(folded, now_ms)
    blocked = state.blocked_reason == BUDGET_EXHAUSTED
    if lacks is None:
        return Record((ev.EventBody(run_unblocked=ev.RunUnblocked(reason=BUDGET_EXHAUSTED)),)) if blocked else None
    if lacks.grantable:
        return Draw(lacks.kind, lacks.missing)
    return Wait() if blocked else Record((exhausted(folded, lacks),))


def next_step(folded: RunFold, group_id: str) -> st.NodeRecord | None:
    """The first step below a group that can be tried now; nothing when one before it must end first."""
    for record in folded.unended(group_id):
        if record.node.HasField("step"):
            return record if record.state == ev.NODE_STATE_PENDING else None
        found = next_step(folded, record.node.node_id)
        if found is not None or record.node.group.on_failure != plan.ON_FAILURE_CONTINUE:
            return found
    return None


def next_attempt(record: st.NodeRecord) -> int:
    """The number of the next attempt: a number that was judged but never intended is used again."""
    attempts = record.attempts
    only_judged = attempts and not attempts[-1].intended_seq and not attempts[-1].finished_seq
    return len(attempts) if only_judged else len(attempts) + 1


def granted_approval(folded: RunFold, record: st.NodeRecord) -> st.ApprovalRecord | None:
    """A yes for this step that no attempt has used yet."""
    approval = folded.last_asked(record.node.node_id)
    return approval if approval is not None and approval.state == ev.APPROVAL_STATE_GRANTED else None


def _continues(folded: RunFold, group: st.NodeRecord, approval: st.ApprovalRecord | None) -> bool:
    """Whether the session still shows what the steps of this group left, so that the next one can follow them.

    It does not once another step acted, once the worker died, or while a person thought about an answer.
    """
    acted = {step.node.node_id: step.attempts[-1] for step in folded.descendants(group.node.node_id) if _acted(step)}
    last = folded.last_intended
    if not acted or last is None:
        return True
    if last.node.node_id not in acted or acted[last.node.node_id].status == act.OUTCOME_STATUS_LOST:
        return False
    return approval is None or ms_of(_last_intent(last).intend_time) >= ms_of(approval.decide_time)


def _acted(record: st.NodeRecord) -> bool:
    """Whether a step acted since its group began, or began again."""
    attempts = record.attempts[record.attempts_before_restart :]
    return not record.node.step.probe_of and any(attempt.intended_seq for attempt in attempts)


def _last_intent(record: st.NodeRecord) -> st.AttemptRecord:
    return max(record.attempts, key=lambda attempt: attempt.intended_seq)


def _last(folded: RunFold) -> Move:
    """What is left when no step can be tried."""
    state = folded.state
    open_nodes = [record for record in folded.children("") if record.state not in ENDED]
    asked = any(record.state in (ev.NODE_STATE_WAITING, ev.NODE_STATE_UNCERTAIN) for record in open_nodes)
    if asked or folded.checking():
        return Wait() if state.blocked_reason == WAITING_FOR_PERSON else Record((_waits_for_person(folded),))
    failed = any(
        record.state in (ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED)
        and record.node.group.on_failure != plan.ON_FAILURE_CONTINUE
        for record in folded.children("")
    )
    return Plan() if state.planning_open and not failed else finish(folded)


def _waits_for_person(folded: RunFold) -> ev.EventBody:
    questions = sum(approval.state == ev.APPROVAL_STATE_PENDING for approval in folded.state.approvals)
    unclear = folded.state.counts.uncertain
    waiting = [f"{n} {noun}{'s' * (n != 1)}" for n, noun in ((questions, "approval"), (unclear, "uncertain step")) if n]
    detail = f"waiting for a person: {' and '.join(waiting)}"
    return ev.EventBody(run_blocked=ev.RunBlocked(reason=WAITING_FOR_PERSON, detail=detail))
