"""What is tried after a failure: the next untried way, and never the same action in the same state three times."""

from __future__ import annotations

from dataclasses import dataclass

from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

TRIES_IN_ONE_STATE = 2
DEFAULT_RESTARTS = 3
FIRST_DELAY_MS = 250
LONGEST_DELAY_MS = 8_000

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

    @classmethod
    def of(cls, outcome: act.Outcome) -> Failure:
        """The failure that an outcome tells of."""
        status = outcome.browser.status
        lost = outcome.status == act.OUTCOME_STATUS_LOST
        return cls(
            signature=outcome.reason or act.OutcomeStatus.Name(outcome.status).removeprefix("OUTCOME_STATUS_"),
            message=outcome.message or "the worker gave no reason",
            page_is_gone=lost or status in _PAGE_IS_GONE,
            denied=status == br.BROWSER_STATUS_POLICY_DENIED,
        )


def after_failure(folded: RunFold, record: st.NodeRecord, failure: Failure, now_ms: int) -> ev.EventBody:
    """The one event that follows a failed step: tried again, its group started again, or given up."""
    tries = sum(not attempt.withdrawn for attempt in record.attempts[record.attempts_before_restart :])
    limit = record.node.step.max_attempts or TRIES_IN_ONE_STATE
    group = restartable(folded, record)
    if failure.denied or failure.hopeless:
        return _settled(record, failure)
    if tries < limit and not (failure.page_is_gone and group):
        return _retried(record, failure, now_ms, tries)
    if group and group.restarts < (group.node.group.max_restarts or DEFAULT_RESTARTS):
        return restarted(group, failure.message, now_ms + _delay_ms(group.restarts), counted=True)
    return _settled(record, failure)


def restartable(folded: RunFold, record: st.NodeRecord) -> st.NodeRecord | None:
    """The nearest group around a step that starts again as a whole."""
    parent_id = record.node.parent_id
    while parent_id:
        parent = folded.node(parent_id)
        if parent.node.group.restart_from_first:
            return parent
        parent_id = parent.node.parent_id
    return None


def restarted(group: st.NodeRecord, reason: str, not_before_ms: int, *, counted: bool) -> ev.EventBody:
    """A group starts again; only restarts after a failure are counted against its limit."""
    event = ev.GroupRestarted(node_id=group.node.node_id, restart=group.restarts + counted, reason=reason)
    event.not_before.FromMilliseconds(not_before_ms)
    return ev.EventBody(group_restarted=event)


def _retried(record: st.NodeRecord, failure: Failure, now_ms: int, tries: int) -> ev.EventBody:
    event = ev.StepRetried(step_id=record.node.node_id, attempt=len(record.attempts), strategy="again")
    event.reason = failure.message
    event.not_before.FromMilliseconds(now_ms + _delay_ms(tries))
    return ev.EventBody(step_retried=event)


def _settled(record: st.NodeRecord, failure: Failure) -> ev.EventBody:
    state = ev.NODE_STATE_DENIED if failure.denied else ev.NODE_STATE_FAILED
    settled = ev.NodeSettled(node_id=record.node.node_id, state=state, signature=failure.signature)
    settled.reason = failure.message
    return ev.EventBody(node_settled=settled)


def _delay_ms(times: int) -> int:
    return min(FIRST_DELAY_MS * 2**times, LONGEST_DELAY_MS)
