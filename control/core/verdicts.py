"""What the verdict of policy on an attempt becomes in the journal: an intent, a question, or a refusal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from control.core.moves import Attempt
from control.core.run import RunFold
from infra.digest import digest_message
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

DEFAULT_APPROVAL_TTL_MS = 15 * 60_000
_SHOWN_FIELDS = 12


def decided(move: Attempt, decision: pol.Decision) -> ev.EventBody:
    """What policy said of an attempt."""
    event = ev.PolicyDecided(step_id=move.record.node.node_id, attempt=move.number, decision=decision)
    return ev.EventBody(policy_decided=event)


def intended(move: Attempt, digest: str, decision: ev.EventBody, worker_id: str, journal_id: str) -> ev.EventBody:
    """The intent of an attempt that policy allows, with the worker it goes to."""
    event = ev.StepIntended(
        step_id=move.record.node.node_id,
        attempt=move.number,
        worker_id=worker_id,
        journal_id=journal_id,
        action_digest=digest,
        effect_class=move.record.node.step.action.effect_class,
        decision_id=decision.policy_decided.decision.decision_id,
        approval_id=move.approval.approval_id if move.approval else "",
    )
    return ev.EventBody(step_intended=event)


def question(
    folded: RunFold, record: st.NodeRecord, decision: pol.Decision, approval_id: str, expires_ms: int
) -> ev.ApprovalRequested:
    """The question to a person whether a step may be done."""
    asked = ev.ApprovalRequested(
        approval_id=approval_id,
        step_id=record.node.node_id,
        action_digest=digest_message(record.node.step.action),
        summary=_summary(folded, record),
        decision=decision,
    )
    asked.expire_time.FromMilliseconds(expires_ms)
    return asked


def ttl_ms(state: st.RunState, decision: pol.Decision) -> int:
    """How long a question stays open: as the mission says, else as the policies that ask."""
    own = _ms(state.spec.limits.approval_ttl)
    ruled = [_ms(obligation.ttl) for obligation in decision.obligations if obligation.HasField("ttl")]
    return own or min(ruled, default=DEFAULT_APPROVAL_TTL_MS)


def unblocked(state: st.RunState) -> Sequence[ev.EventBody]:
    """A run that has a verdict is not blocked any more."""
    reason = state.blocked_reason
    return (ev.EventBody(run_unblocked=ev.RunUnblocked(reason=reason)),) if reason else ()


def denied(state: st.RunState, move: Attempt, decision: pol.Decision) -> Sequence[ev.EventBody]:
    """A step that policy denies."""
    return (*unblocked(state), decided(move, decision), _refused(move.record, decision))


def judged_only(record: st.NodeRecord, decision: pol.Decision) -> ev.EventBody:
    """A step of a dry run, which is judged and not done."""
    verdict = pol.Verdict.Name(decision.verdict).removeprefix("VERDICT_")
    reason = f"dry run: policy says {verdict}" + (f": {'; '.join(decision.reasons)}" if decision.reasons else "")
    settled = ev.NodeSettled(node_id=record.node.node_id, state=ev.NODE_STATE_SKIPPED, reason=reason)
    settled.signature = f"DRY_RUN_{verdict}"
    return ev.EventBody(node_settled=settled)


def _refused(record: st.NodeRecord, decision: pol.Decision) -> ev.EventBody:
    why = "; ".join([*decision.reasons, *decision.errors]) or "no policy allows it"
    by = f" ({', '.join(decision.policy_ids)})" if decision.policy_ids else ""
    settled = ev.NodeSettled(node_id=record.node.node_id, state=ev.NODE_STATE_DENIED, signature="POLICY_DENIED")
    settled.reason = f"denied by policy: {why}{by}"
    return ev.EventBody(node_settled=settled)


def _summary(folded: RunFold, record: st.NodeRecord) -> str:
    """What will happen, with the values that are about to be sent."""
    parent = folded.node(record.node.parent_id).node.title if record.node.parent_id else ""
    what = f"{record.node.title} {parent}".strip()
    values = [f"{f.label} = {f.value}" for f in _expected(record.node.step.action)][:_SHOWN_FIELDS]
    return f"{what}: {', '.join(values)}" if values else what


def _expected(action: act.Action) -> Sequence[br.FieldValue]:
    return action.browser.click.expect


def _ms(duration: Duration) -> int:
    return duration.seconds * 1000 + duration.nanos // 1_000_000
