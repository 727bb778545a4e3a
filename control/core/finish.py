"""How a run ends: what is said of it, and whether that is a success."""

from control.core.moments import ms_of
from control.core.moves import Finish
from control.core.run import RunFold
from infra.errors import SkyError
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

OVERDUE = "DEADLINE"
"""The reason of a run that had not ended when it must have."""

UNVERIFIED = "UNVERIFIED"
"""The reason of a run that did all it was to do and could ask nobody whether it is so."""


def ending(state: st.RunState, now_ms: int) -> bool:
    """Whether nothing more of a run is started, because a person cancelled it or its deadline has passed."""
    return state.cancel_wanted or overdue(state, now_ms)


def overdue(state: st.RunState, now_ms: int) -> bool:
    """Whether the moment at which a run must have ended has passed."""
    return state.HasField("deadline") and ms_of(state.deadline) <= now_ms


def finish(folded: RunFold, now_ms: int = 0) -> Finish:
    """The end of a run none of whose steps can be tried any more."""
    state = folded.state
    if state.cancel_wanted:
        return Finish(ev.RUN_PHASE_CANCELLED, "CANCELLED", state.cancel_reason or "cancelled by a person")
    if overdue(state, now_ms):
        passed = f"its deadline {state.deadline.ToJsonString()} has passed"
        return Finish(ev.RUN_PHASE_FAILED, OVERDUE, f"{passed}: {_failed(folded)}")
    if state.spec.dry_run:
        return Finish(ev.RUN_PHASE_SUCCEEDED, "DRY_RUN", _judged(folded))
    failed = [record for record in folded.children("") if record.state != ev.NODE_STATE_SUCCEEDED]
    if not failed and state.nodes:
        reason = UNVERIFIED if any(unproven(folded, record) for record in records(folded)) else ""
        return Finish(ev.RUN_PHASE_SUCCEEDED, reason, _done(folded))
    return Finish(ev.RUN_PHASE_FAILED, _reason(folded), _failed(folded))


def closed_questions(folded: RunFold) -> list[ev.EventBody]:
    """The end of every question that nobody has answered: its run is over."""
    pending = [approval for approval in folded.state.approvals if approval.state == ev.APPROVAL_STATE_PENDING]
    expired = ev.APPROVAL_STATE_EXPIRED
    return [
        ev.EventBody(
            approval_decided=ev.ApprovalDecided(approval_id=asked.approval_id, state=expired, note="the run has ended")
        )
        for asked in pending
    ]


def finished(folded: RunFold, move: Finish) -> list[ev.EventBody]:
    """The events that end a run: open questions first, then what is said of it, with the digests of what it made."""
    end = ev.RunFinished(phase=move.phase, reason=move.reason, summary=move.summary)
    end.evidence.extend(artifact.blob.digest for artifact in folded.state.artifacts)
    return [*closed_questions(folded), ev.EventBody(run_finished=end)]


def unplannable(error: SkyError) -> Finish:
    """The end of a run for which there is no plan."""
    return Finish(ev.RUN_PHASE_FAILED, error.reason, f"it cannot be planned: {error.message}")


def records(folded: RunFold) -> list[st.NodeRecord]:
    """The groups that are about one record of the inputs each."""
    return [node for node in folded.state.nodes if node.node.group.record_key]


def unproven(folded: RunFold, record: st.NodeRecord) -> bool:
    """Whether nothing asks the application about a record: then no answer of its pages makes it more than sent."""
    steps = folded.children(record.node.node_id)
    return not any(claim.HasField("listed") for step in steps for claim in step.node.step.postconditions)


def _done(folded: RunFold) -> str:
    entered = len(records(folded))
    false = folded.state.counts.false_successes
    caught = f"; {counted(false, 'false success')} caught" if false else ""
    sent = sum(unproven(folded, record) for record in records(folded))
    if sent:
        return f"{counted(sent, 'record')} sent, none verified: the application cannot be asked{caught}"
    if entered:
        return f"{counted(entered, 'record')} entered and seen in the application{caught}"
    return f"{counted(folded.state.counts.steps_succeeded, 'step')} done, each with evidence{caught}"


def _failed(folded: RunFold) -> str:
    entries = records(folded)
    first = _first_failure(folded)
    why = f": {first.node.title}: {first.reason}" if first else ""
    if entries:
        entered = sum(record.state == ev.NODE_STATE_SUCCEEDED for record in entries)
        done = "sent, unverified" if any(unproven(folded, record) for record in entries) else "entered"
        return f"{entered} of {counted(len(entries), 'record')} {done}{why}"
    return f"not done{why}"


def _first_failure(folded: RunFold) -> st.NodeRecord | None:
    states = (ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED)
    return next((node for node in _steps(folded) if node.state in states), None)


def _reason(folded: RunFold) -> str:
    bad = [node for node in _steps(folded) if node.state in (ev.NODE_STATE_FAILED, ev.NODE_STATE_DENIED)]
    if bad and all(node.state == ev.NODE_STATE_DENIED for node in bad):
        return "DENIED"
    return next((node.signature for node in bad if node.state == ev.NODE_STATE_FAILED), "NOTHING_PLANNED")


def _steps(folded: RunFold) -> list[st.NodeRecord]:
    """The steps of the plan, without the probes that looked after them."""
    return [node for node in folded.state.nodes if node.node.HasField("step") and not node.node.step.probe_of]


def _judged(folded: RunFold) -> str:
    steps = _steps(folded)
    asks = sum(node.signature == "DRY_RUN_ASK" for node in steps)
    denied = sum(node.signature == "DRY_RUN_DENY" for node in steps)
    judged = f"{counted(len(steps), 'step')} judged, {asks} would ask a person, {denied} denied"
    return f"dry run: {judged}; nothing was touched"


def counted(number: int, noun: str) -> str:
    """A number with its noun: 1 approval, 2 approvals."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"{number} {noun if number == 1 else plural}"
