"""What is tried after a failure: the next untried way, and never the same action in the same state three times."""

from __future__ import annotations

from dataclasses import dataclass

from control.core.moments import duration_ms
from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

TRIES_IN_ONE_STATE = 2
DEFAULT_RESTARTS = 3
FIRST_DELAY_MS = 250
LONGEST_DELAY_MS = 8_000
_DOUBLINGS = 20
MOST_INTERRUPTIONS = 10
"""How often a step may be interrupted before that counts as its own failure: some actions kill whoever does them."""

# Refusals that a later attempt at the same action meets again.
_FOR_GOOD = frozenset({"DIGEST_MISMATCH", "INVALID_ACTION", "UNSUPPORTED_ACTION", "RUN_ENDED"})

_NOT_TWICE = frozenset({eff.EFFECT_CLASS_PROBEABLE, eff.EFFECT_CLASS_ONCE})

# The page that the step was written for is no longer there: the step alone cannot succeed any more.
_PAGE_IS_GONE = frozenset(
    {
        br.BROWSER_STATUS_STALE,
        br.BROWSER_STATUS_NAVIGATED,
        br.BROWSER_STATUS_CRASHED,
        br.BROWSER_STATUS_NOT_FOUND,
        br.BROWSER_STATUS_UNEXPECTED_STATE,
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step must be tried again or given up."""

    signature: str
    message: str
    page_is_gone: bool = False
    hopeless: bool = False
    denied: bool = False
    interrupted: bool = False
    """The worker died, was stopped or had to decline: it says nothing about the action."""

    @classmethod
    def of(cls, outcome: act.Outcome) -> Failure:
        """The failure that an outcome tells of."""
        status = outcome.browser.status
        lost = outcome.status == act.OUTCOME_STATUS_LOST
        refused = outcome.status == act.OUTCOME_STATUS_REFUSED
        return cls(
            signature=outcome.reason or act.OutcomeStatus.Name(outcome.status).removeprefix("OUTCOME_STATUS_"),
            message=outcome.message or "the worker gave no reason",
            page_is_gone=lost or status in _PAGE_IS_GONE,
            hopeless=refused and outcome.reason in _FOR_GOOD,
            denied=status == br.BROWSER_STATUS_POLICY_DENIED,
            interrupted=_interrupted(outcome.status, outcome.reason),
        )


def after_failure(folded: RunFold, record: st.NodeRecord, failure: Failure, now_ms: int) -> ev.EventBody:
    """The one event that follows a failed step: tried again, its group started again, or given up.

    Interruptions are not tries: nothing was learned about the action. They are bounded all the same: further ones are.
    """
    group = restartable(folded, record)
    if failure.denied or failure.hopeless:
        return _settled(record, failure)
    interruptions = sum(_interrupted(attempt.status, attempt.outcome_reason) for attempt in record.attempts)
    free = failure.interrupted and interruptions <= MOST_INTERRUPTIONS
    policy = folded.state.retry
    if not (failure.page_is_gone and group):
        tries = _tries(record) + max(0, interruptions - MOST_INTERRUPTIONS)
        if free or tries < most_attempts(policy, record):
            return _retried(record, failure, now_ms + delay_ms(policy, interruptions if free else tries))
    if group and free:
        return restarted(group, failure.message, now_ms + delay_ms(policy, interruptions - 1), counted=False)
    if group and group.restarts < most_restarts(policy, group):
        return restarted(group, failure.message, now_ms + delay_ms(policy, group.restarts), counted=True)
    return _settled(record, failure)


def most_attempts(policy: cmd.RetryPolicy, record: st.NodeRecord) -> int:
    """Attempts in one state of the world: what a person set for the run goes before what the step says."""
    planned = record.node.step.max_attempts or TRIES_IN_ONE_STATE
    return policy.max_attempts if policy.HasField("max_attempts") else planned


def most_restarts(policy: cmd.RetryPolicy, group: st.NodeRecord) -> int:
    """How often a group may start again: what a person set for the run goes before what the group says."""
    planned = group.node.group.max_restarts or DEFAULT_RESTARTS
    return policy.max_restarts if policy.HasField("max_restarts") else planned


def delay_ms(policy: cmd.RetryPolicy, times: int) -> int:
    """How long to wait before the next try, after so many: twice as long each time, up to a bound."""
    first = duration_ms(policy.first_delay) if policy.HasField("first_delay") else FIRST_DELAY_MS
    longest = duration_ms(policy.longest_delay) if policy.HasField("longest_delay") else max(LONGEST_DELAY_MS, first)
    return min(first * 2 ** min(times, _DOUBLINGS), longest)


def restartable(folded: RunFold, record: st.NodeRecord) -> st.NodeRecord | None:
    """The nearest group around a step that may start again as a whole.

    A probe never starts its group again: that would repeat the very step that it asks about. Nor does a step after one
    whose effect must not happen twice.
    """
    parent_id = "" if record.node.step.probe_of else record.node.parent_id
    while parent_id:
        parent = folded.node(parent_id)
        if parent.node.group.restart_from_first:
            return None if _would_repeat(folded, parent, record) else parent
        parent_id = parent.node.parent_id
    return None


def _would_repeat(folded: RunFold, group: st.NodeRecord, record: st.NodeRecord) -> bool:
    return any(
        step.node.step.action.effect_class in _NOT_TWICE
        and step.state not in (ev.NODE_STATE_PENDING, ev.NODE_STATE_WAITING)
        and step.node.node_id != record.node.node_id
        for step in folded.descendants(group.node.node_id)
    )


def _tries(record: st.NodeRecord) -> int:
    """Attempts in the present state of the world that said something about the action."""
    mine = record.attempts[record.attempts_before_restart :]
    return sum(not (a.withdrawn or _interrupted(a.status, a.outcome_reason)) for a in mine)


def _interrupted(status: act.OutcomeStatus.ValueType, reason: str) -> bool:
    if status == act.OUTCOME_STATUS_REFUSED:
        return reason not in _FOR_GOOD
    return status in (act.OUTCOME_STATUS_LOST, act.OUTCOME_STATUS_CANCELLED)


def restarted(group: st.NodeRecord, reason: str, not_before_ms: int, *, counted: bool) -> ev.EventBody:
    """A group starts again; only restarts after a failure are counted against its limit."""
    event = ev.GroupRestarted(node_id=group.node.node_id, restart=group.restarts + counted, reason=reason)
    event.not_before.FromMilliseconds(not_before_ms)
    return ev.EventBody(group_restarted=event)


def _retried(record: st.NodeRecord, failure: Failure, not_before_ms: int) -> ev.EventBody:
    event = ev.StepRetried(step_id=record.node.node_id, attempt=len(record.attempts), strategy="again")
    event.reason = failure.message
    event.not_before.FromMilliseconds(not_before_ms)
    return ev.EventBody(step_retried=event)


def _settled(record: st.NodeRecord, failure: Failure) -> ev.EventBody:
    state = ev.NODE_STATE_DENIED if failure.denied else ev.NODE_STATE_FAILED
    settled = ev.NodeSettled(node_id=record.node.node_id, state=state, signature=failure.signature)
    settled.reason = failure.message
    return ev.EventBody(node_settled=settled)
