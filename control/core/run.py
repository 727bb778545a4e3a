"""The fold of a run's journal: every state that a run can be in, and nothing but its events decides which.

The accumulator is the protobuf message RunState itself. The dashboard folds the same events in TypeScript to the same
bytes, snapshots are its serialization, and REST returns it as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

from control.core import meters
from control.core.idle import Idle
from control.core.index import Index
from control.core.moments import ms_of
from control.core.tree import ENDED, group_state
from infra.errors import DataLoss
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

FOLD_VERSION = 2
"""Raised whenever the same events fold to another state, or a new kind of event appears."""

WAITING_FOR_PERSON = "WAITING_FOR_PERSON"
"""The blocked reason of a run that can only go on once a person has answered."""

BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
"""The blocked reason of a run that has used up what it may use; it goes on by itself once it may use more."""

LOG_BEHIND = "LOG_BEHIND"
"""The blocked reason of a run that a worker knows more of than its journal: only a person lets it go on."""

WORKER_AWAY = "WORKER_AWAY"
"""The blocked reason while a worker is away that may have begun what must not happen twice; and the reason of an
outcome that is only the owner's word for a worker that is away."""

INTERNAL_ERROR = "INTERNAL_ERROR"
"""The blocked reason of a run whose owner broke; it tries again by itself."""

TERMINAL = frozenset({ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED, ev.RUN_PHASE_CANCELLED})


class IllegalEvent(DataLoss):
    """An event that cannot follow what was folded so far, or that this version does not know."""


def terminal(phase: ev.RunPhase.ValueType) -> bool:
    """Whether a run in this phase has ended for good."""
    return phase in TERMINAL


def outcome_in(body: ev.EventBody) -> act.Outcome | None:
    """What came of an attempt, in the event that tells it; nothing in any other."""
    match body.WhichOneof("kind"):
        case "step_finished":
            return body.step_finished.outcome
        case "outcome_inherited":
            return body.outcome_inherited.outcome
        case "begun_elsewhere":
            return body.begun_elsewhere.outcome
        case _:
            return None


def fold(events: Iterable[ev.RunEvent]) -> st.RunState:
    """Folds a whole journal."""
    folded = RunFold()
    for event in events:
        folded.apply(event)
    return folded.state


class RunFold:
    """A run's state with an index of its plan, advanced event by event.

    The message in `state` belongs to the fold: readers copy it before they keep it.
    """

    def __init__(self, state: st.RunState | None = None) -> None:
        self.state = state or st.RunState()
        self._idle = Idle()

    @cached_property
    def _index(self) -> Index:
        """Made when it is first needed: whoever only wants the state of a long run does not wait for it."""
        return Index(self.state)

    @cached_property
    def last_intended(self) -> st.NodeRecord | None:
        """The step, not a probe, whose attempt was intended last: its page or window is what the session shows."""
        since = self.state.inherited_seq  # what a fork inherited is no page of its own session
        acted = [record for record in self.state.nodes if _intended_seq(record) > since]
        acted = [record for record in acted if not record.node.step.probe_of]
        return max(acted, key=_intended_seq, default=None)

    def apply(self, event: ev.RunEvent) -> None:
        """Advances the state by one event.

        Raises:
            IllegalEvent: when the event is not the next one, or of a kind that this version does not know.
        """
        kind = event.body.WhichOneof("kind")
        if event.seq != self.state.seq + 1:
            raise IllegalEvent("JOURNAL_GAP", f"event {event.seq} of run {event.run_id} follows event {self.state.seq}")
        if kind is None and not event.erased:
            told = f"event {event.seq} of run {event.run_id} is of a kind unknown here: use a newer version"
            raise IllegalEvent("UNKNOWN_EVENT", told)
        meters.passed(self.state, event)
        self.state.run_id, self.state.seq, self.state.epoch = event.run_id, event.seq, event.epoch
        self.state.update_time.CopyFrom(event.time)
        if kind is not None:
            _ = self._index  # made before the state changes: from then on it is told what changed
            _APPLY[kind](self, getattr(event.body, kind), event)
        self.state.phase = self._phase()
        self._idle.after(self.state.phase, ms_of(event.time))

    def active_ms(self, now_ms: int) -> int:
        """How long the run has been under way, without its pauses and the times when it waited for a person.

        Only where all of its events were folded here: a state that was kept does not say how long it stood still.
        """
        return max(0, now_ms - ms_of(self.state.create_time) - self._idle.until(now_ms))

    def node(self, node_id: str) -> st.NodeRecord:
        """The record of a node; raises IllegalEvent when the plan has no such node."""
        record = self._index.records.get(node_id)
        if record is None:
            raise IllegalEvent("UNKNOWN_NODE", f"run {self.state.run_id} has no node {node_id!r} in its plan")
        return record

    def children(self, node_id: str) -> tuple[st.NodeRecord, ...]:
        """The nodes directly below a group, in the order in which they were planned; "" stands for the whole plan."""
        return self._index.children(node_id)

    def descendants(self, node_id: str) -> Iterator[st.NodeRecord]:
        """Every node below a group, parents first."""
        return self._index.descendants(node_id)

    def unended(self, group_id: str) -> Iterator[st.NodeRecord]:
        """The nodes directly below a group that are not done with, probes left out, in order."""
        return self._index.unended(group_id)

    def probes(self, step_id: str) -> tuple[st.NodeRecord, ...]:
        """The steps that ask the world about a step, oldest first."""
        return self._index.probes(step_id)

    def checking(self) -> list[st.NodeRecord]:
        """Steps whose outcome is being checked: probes first, since what they saw decides about the others."""
        return self._index.checking()

    def latest_under_way(self, group_id: str) -> st.NodeRecord | None:
        """The last node right below a group that is under way."""
        return self._index.latest_under_way(group_id)

    def last_asked(self, step_id: str) -> st.ApprovalRecord | None:
        """The last question that was asked about a step."""
        return self._index.last_asked(step_id)

    def last_questions(self) -> Iterator[st.ApprovalRecord]:
        """The last question about each step that a person was ever asked about."""
        return self._index.last_questions()

    def attempt(self, step_id: str, number: int) -> st.AttemptRecord | None:
        """One attempt at a step, or nothing when it was never intended or judged."""
        record = self._index.records.get(step_id)
        return record.attempts[number - 1] if record and 0 < number <= len(record.attempts) else None

    def last_attempt(self, step_id: str) -> st.AttemptRecord | None:
        """The last attempt at a step; nothing when there was none, or no such step."""
        record = self._index.records.get(step_id)
        return record.attempts[-1] if record and record.attempts else None

    def open_attempts(self) -> list[tuple[st.NodeRecord, st.AttemptRecord]]:
        """Attempts whose intent is open: at most one for each session."""
        return [(record, record.attempts[-1]) for record in self._index.open.values()]

    def _set(self, record: st.NodeRecord, state: ev.NodeState.ValueType) -> None:
        if record.state == state:
            return
        counts = self.state.counts
        if record.node.HasField("step") and not record.node.step.probe_of:
            counts.steps_succeeded += (state == ev.NODE_STATE_SUCCEEDED) - (record.state == ev.NODE_STATE_SUCCEEDED)
        if record.node.HasField("step"):
            counts.uncertain += (state == ev.NODE_STATE_UNCERTAIN) - (record.state == ev.NODE_STATE_UNCERTAIN)
        before, record.state = record.state, state
        self._index.moved(record, before)
        if not record.node.step.probe_of:
            self._refresh(record)

    def _refresh(self, child: st.NodeRecord) -> None:
        """Lets the group above a changed node follow it."""
        parent_id = child.node.parent_id
        if not parent_id:
            if _aborts(child):
                self._skip_pending("")
            return
        parent = self.node(parent_id)
        if _aborts(child) and parent.state not in ENDED:
            parent.reason, parent.signature = child.reason, child.signature
            self._set(parent, child.state)
            self._skip_pending(parent_id)
            return
        if parent.state in ENDED and child.state == ev.NODE_STATE_SKIPPED:
            return
        self._set(parent, group_state(self._index.tally[parent_id], parent.state))

    def _skip_pending(self, group_id: str) -> None:
        for record in self.descendants(group_id):
            if record.state == ev.NODE_STATE_PENDING:
                record.reason = "not tried, because of a failure before it"
                self._set(record, ev.NODE_STATE_SKIPPED)

    def _phase(self) -> ev.RunPhase.ValueType:
        state = self.state
        if state.phase in TERMINAL:
            return state.phase
        if state.cancel_wanted:
            return ev.RUN_PHASE_CANCELLING
        if state.pause_wanted:
            return ev.RUN_PHASE_PAUSING if state.counts.open_intents else ev.RUN_PHASE_PAUSED
        if state.blocked_reason in (WAITING_FOR_PERSON, BUDGET_EXHAUSTED):
            return ev.RUN_PHASE_WAITING
        return ev.RUN_PHASE_RUNNING if state.node_id else ev.RUN_PHASE_QUEUED

    def _run_created(self, body: ev.RunCreated, event: ev.RunEvent) -> None:
        state = self.state
        state.mission_id, state.tenant, state.actor = body.mission_id, body.tenant, body.actor
        state.template_version, state.fold_version, state.ordinal = (
            body.template_version,
            body.fold_version,
            body.ordinal,
        )
        state.spec.CopyFrom(body.spec)
        state.create_time.CopyFrom(event.time)
        state.planning_open = True
        if body.HasField("parent"):
            state.parent.CopyFrom(body.parent)
        state.lineage = body.lineage

    def _owner_changed(self, body: ev.OwnerChanged, event: ev.RunEvent) -> None:
        self.state.counts.takeovers += bool(self.state.node_id)
        self.state.node_id = body.node_id
        self.state.fold_version = body.fold_version or self.state.fold_version

    def _plan_extended(self, body: ev.PlanExtended, event: ev.RunEvent) -> None:
        for node in body.nodes:
            record = self.state.nodes.add(node=node, planner=body.planner, planned_seq=event.seq)
            record.state = ev.NODE_STATE_PENDING
            if node.step.HasField("not_before"):
                record.not_before.CopyFrom(node.step.not_before)
            self._index.add(record)
            if node.HasField("step") and not node.step.probe_of:
                self.state.counts.steps += 1
            if node.parent_id and not node.step.probe_of:
                self._refresh(record)
        if not any(node.step.probe_of for node in body.nodes):
            self.state.planning_open = body.more

    def _policy_decided(self, body: ev.PolicyDecided, event: ev.RunEvent) -> None:
        self._attempt(body.step_id, body.attempt).decision.CopyFrom(body.decision)

    def _step_intended(self, body: ev.StepIntended, event: ev.RunEvent) -> None:
        attempt = self._attempt(body.step_id, body.attempt)
        attempt.worker_id, attempt.journal_id = body.worker_id, body.journal_id
        attempt.action_digest, attempt.effect_class = body.action_digest, body.effect_class
        attempt.approval_id, attempt.epoch, attempt.intended_seq = body.approval_id, event.epoch, event.seq
        attempt.intend_time.CopyFrom(event.time)
        attempt.open, attempt.withdrawn = True, False
        self.state.counts.attempts += 1
        self.state.counts.open_intents += 1
        meters.step_begun(self.state)
        if body.approval_id:
            self._approval(body.approval_id).state = ev.APPROVAL_STATE_CONSUMED
        record = self.node(body.step_id)
        self._index.open[body.step_id] = record
        if not record.node.step.probe_of:
            self.last_intended = record
        self._set(record, ev.NODE_STATE_RUNNING)

    def _step_withdrawn(self, body: ev.StepWithdrawn, event: ev.RunEvent) -> None:
        attempt = self._attempt(body.step_id, body.attempt)
        self._close(body.step_id, attempt, spent=0)
        attempt.withdrawn, attempt.effect, attempt.message = True, eff.EFFECT_NONE, body.reason
        self._set(self.node(body.step_id), ev.NODE_STATE_PENDING)

    def _step_finished(self, body: ev.StepFinished, event: ev.RunEvent) -> None:
        attempt, outcome = self._attempt(body.step_id, body.attempt), body.outcome
        self._close(body.step_id, attempt)
        attempt.status, attempt.effect = outcome.status, outcome.effect
        attempt.message, attempt.outcome_reason, attempt.finished_seq = outcome.message, outcome.reason, event.seq
        attempt.finish_time.CopyFrom(event.time)
        del attempt.blobs[:]
        attempt.blobs.extend(outcome.blobs)
        self.state.counts.lost_attempts += outcome.status == act.OUTCOME_STATUS_LOST
        if outcome.HasField("session"):
            self._session_kept(outcome.session)
        self._set(self.node(body.step_id), ev.NODE_STATE_CHECKING)

    def _session_kept(self, session: act.SessionState) -> None:
        for kept in self.state.sessions:
            if kept.session_id == session.session_id:
                kept.CopyFrom(session)
                return
        self.state.sessions.append(session)

    def _step_validated(self, body: ev.StepValidated, event: ev.RunEvent) -> None:
        record, attempt = self.node(body.step_id), self._attempt(body.step_id, body.attempt)
        del attempt.findings[:]
        attempt.findings.extend(body.findings)
        attempt.holds = body.holds
        if body.holds == plan.HOLDS_YES:
            self._set(record, ev.NODE_STATE_SUCCEEDED)
        elif body.holds == plan.HOLDS_NO and attempt.status == act.OUTCOME_STATUS_OK:
            self.state.counts.false_successes += 1

    def _step_retried(self, body: ev.StepRetried, event: ev.RunEvent) -> None:
        record = self.node(body.step_id)
        record.reason = body.reason
        record.not_before.CopyFrom(body.not_before)
        self._set(record, ev.NODE_STATE_PENDING)

    def _group_restarted(self, body: ev.GroupRestarted, event: ev.RunEvent) -> None:
        group = self.node(body.node_id)
        group.restarts, group.reason = body.restart, body.reason
        group.not_before.CopyFrom(body.not_before)
        for record in self.descendants(body.node_id):
            record.attempts_before_restart = len(record.attempts)
            if not record.node.step.probe_of:
                record.ClearField("not_before")
                self._set(record, ev.NODE_STATE_PENDING)

    def _node_settled(self, body: ev.NodeSettled, event: ev.RunEvent) -> None:
        record = self.node(body.node_id)
        record.reason, record.signature = body.reason, body.signature
        self._set(record, body.state)

    def _approval_requested(self, body: ev.ApprovalRequested, event: ev.RunEvent) -> None:
        approval = self.state.approvals.add(
            approval_id=body.approval_id,
            step_id=body.step_id,
            action_digest=body.action_digest,
            summary=body.summary,
            state=ev.APPROVAL_STATE_PENDING,
            reasons=body.decision.reasons,
            policy_ids=body.decision.policy_ids,
            expire_time=body.expire_time,
            request_time=event.time,
        )
        self._index.asked(approval)
        self.state.counts.approvals += 1
        self._set(self.node(body.step_id), ev.NODE_STATE_WAITING)

    def _approval_decided(self, body: ev.ApprovalDecided, event: ev.RunEvent) -> None:
        approval = self._approval(body.approval_id)
        approval.state, approval.actor, approval.note = body.state, body.actor, body.note
        approval.decide_time.CopyFrom(event.time)
        record = self.node(approval.step_id)
        if body.state == ev.APPROVAL_STATE_GRANTED and record.state == ev.NODE_STATE_WAITING:
            self._set(record, ev.NODE_STATE_PENDING)

    def _command_applied(self, body: ev.CommandApplied, event: ev.RunEvent) -> None:
        state, kind = self.state, body.command.WhichOneof("kind")
        if kind == "pause":
            state.pause_wanted = True
        elif kind == "resume":
            state.pause_wanted = False
        elif kind == "cancel":
            state.cancel_wanted, state.cancel_reason = True, body.command.cancel.reason
        elif kind == "steer":
            state.steering.append(body.command.steer.message)
        elif kind == "priority":
            state.priority = body.command.priority.priority
        elif kind == "deadline":
            state.deadline.CopyFrom(body.command.deadline.deadline)
        elif kind == "fork":
            state.forks.append(body.command.fork.run_id)
            state.lineage = state.lineage or state.run_id
        elif kind == "budget":
            meters.topped_up(state, body.command.budget.kind, body.command.budget.amount)
        elif kind == "retry":
            state.retry.CopyFrom(body.command.retry)

    def _step_uncertain(self, body: ev.StepUncertain, event: ev.RunEvent) -> None:
        record = self.node(body.step_id)
        attempt = self._attempt(body.step_id, body.attempt)
        if attempt.open:
            self._close(body.step_id, attempt)
            attempt.effect = eff.EFFECT_UNKNOWN
        record.reason = body.known
        self._set(record, ev.NODE_STATE_UNCERTAIN)

    def _uncertainty_resolved(self, body: ev.UncertaintyResolved, event: ev.RunEvent) -> None:
        record = self.node(body.step_id)
        self._attempt(body.step_id, body.attempt).effect = body.effect
        record.reason = body.note
        self._set(record, ev.NODE_STATE_SUCCEEDED if body.effect == eff.EFFECT_DONE else ev.NODE_STATE_PENDING)

    def _run_blocked(self, body: ev.RunBlocked, event: ev.RunEvent) -> None:
        self.state.blocked_reason, self.state.blocked_detail = body.reason, body.detail

    def _run_unblocked(self, body: ev.RunUnblocked, event: ev.RunEvent) -> None:
        self.state.blocked_reason = self.state.blocked_detail = ""

    def _artifact_recorded(self, body: ev.ArtifactRecorded, event: ev.RunEvent) -> None:
        self.state.artifacts.append(body)

    def _run_finished(self, body: ev.RunFinished, event: ev.RunEvent) -> None:
        state = self.state
        state.phase, state.summary, state.reason = body.phase, body.summary, body.reason
        state.finish_time.CopyFrom(event.time)
        state.blocked_reason = state.blocked_detail = ""
        state.planning_open = False
        meters.ended(state)

    def _model_call_intended(self, body: ev.ModelCallIntended, event: ev.RunEvent) -> None:
        self.state.counts.model_calls += 1
        meters.call_begun(self.state, body)

    def _model_call_finished(self, body: ev.ModelCallFinished, event: ev.RunEvent) -> None:
        self.state.counts.cost_microusd += meters.call_ended(self.state, body)

    def _run_budgeted(self, body: ev.RunBudgeted, event: ev.RunEvent) -> None:
        meters.budgeted(self.state, body)

    def _budget_granted(self, body: ev.BudgetGranted, event: ev.RunEvent) -> None:
        meters.granted(self.state, body)

    def _goal_changed(self, body: ev.GoalChanged, event: ev.RunEvent) -> None:
        self.state.goal = body.goal

    def _steering_answered(self, body: ev.SteeringAnswered, event: ev.RunEvent) -> None:
        self.state.steering_note = body.note

    def _state_inherited(self, body: ev.StateInherited, event: ev.RunEvent) -> None:
        self.state.planning_open = False
        self.state.MergeFromString(body.state)
        self.state.inherited_seq = event.seq
        if not body.more:
            self._index, self.last_intended = Index(self.state), None

    def _outcome_inherited(self, body: ev.OutcomeInherited, event: ev.RunEvent) -> None:
        self._attempt(body.step_id, body.attempt).finished_seq = event.seq

    def _begun_elsewhere(self, body: ev.BegunElsewhere, event: ev.RunEvent) -> None:
        record, attempt, outcome = self.node(body.step_id), self._attempt(body.step_id, body.attempt), body.outcome
        self._close(body.step_id, attempt)
        attempt.effect_class = record.node.step.action.effect_class
        attempt.status, attempt.effect = outcome.status, outcome.effect
        attempt.message, attempt.outcome_reason, attempt.finished_seq = outcome.message, outcome.reason, event.seq
        attempt.finish_time.CopyFrom(event.time)
        attempt.begun_by, attempt.begun_number = body.run_id, body.number
        self._set(record, ev.NODE_STATE_CHECKING)

    def _attempt(self, step_id: str, number: int) -> st.AttemptRecord:
        attempts = self.node(step_id).attempts
        if number == len(attempts) + 1:
            return attempts.add(attempt=number)
        if not 0 < number <= len(attempts):
            raise IllegalEvent("ATTEMPT_GAP", f"step {step_id} has {len(attempts)} attempts and none numbered {number}")
        return attempts[number - 1]

    def _approval(self, approval_id: str) -> st.ApprovalRecord:
        approval = self._index.approvals.get(approval_id)
        if approval is not None:
            return approval
        raise IllegalEvent("UNKNOWN_APPROVAL", f"run {self.state.run_id} never asked {approval_id!r}")

    def _close(self, step_id: str, attempt: st.AttemptRecord, *, spent: int = 1) -> None:
        if attempt.open:
            self.state.counts.open_intents -= 1
            meters.step_ended(self.state, spent=spent)
            self._index.open.pop(step_id, None)
        attempt.open = False


def _evidence_only(_folded: RunFold, _body: object, _event: ev.RunEvent) -> None:
    """For events that are evidence and change no state of the run."""


_APPLY: dict[str, Callable[[RunFold, object, ev.RunEvent], None]] = {
    field.name: getattr(RunFold, f"_{field.name}", _evidence_only) for field in ev.EventBody.DESCRIPTOR.fields
}


def _intended_seq(record: st.NodeRecord) -> int:
    """Sequence number of the last intent of a step; 0 when there was none."""
    return max((attempt.intended_seq for attempt in record.attempts), default=0)


def _aborts(record: st.NodeRecord) -> bool:
    """Whether the end of this node ends the group above it."""
    if record.state not in (ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED):
        return False
    return record.node.HasField("step") or record.node.group.on_failure != plan.ON_FAILURE_CONTINUE
