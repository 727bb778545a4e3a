"""A run among its relatives: what must not happen twice is begun by one of them at a time (control/journal/lineage)."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.fork import elsewhere
from control.core.lineage import NOT_TWICE, Begun, ending_of
from control.core.run import RunFold
from control.journal import BegunElsewhere, Claim, Release
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

BUSY_ELSEWHERE = "BUSY_ELSEWHERE"
"""The blocked reason of a run whose next step a relative is doing at this very moment."""


def shared(folded: RunFold, record: st.NodeRecord) -> bool:
    """Whether a step may only be begun by one run at a time."""
    return bool(folded.state.lineage) and record.node.step.action.effect_class in NOT_TWICE


def claims_of(folded: RunFold, events: Sequence[ev.EventBody]) -> tuple[Claim, ...]:
    """What a commit begins that relatives must not begin, too; the events are folded already."""
    begun = [body.step_intended for body in events if body.HasField("step_intended")]
    records = [folded.node(intended.step_id) for intended in begun] if folded.state.lineage else []
    return tuple(
        Claim(folded.state.lineage, record.node.node_id, _known(record)) for record in records if shared(folded, record)
    )


def releases_of(folded: RunFold, events: Sequence[ev.EventBody]) -> tuple[Release, ...]:
    """What a commit ends of it, also where the run has not heard of its first fork yet."""
    lineage = folded.state.lineage or folded.state.run_id
    ended = [ending for body in events if (ending := ending_of(body)) is not None]
    return tuple(
        Release(lineage, ending.step_id, ending.nothing)
        for ending in ended
        if folded.node(ending.step_id).node.step.action.effect_class in NOT_TWICE
    )


def found(folded: RunFold, error: BegunElsewhere) -> Sequence[ev.EventBody]:
    """What a run records when a relative has begun its next step: from there on the core finds out what came of it."""
    record = folded.node(error.step_id)
    if record.state != ev.NODE_STATE_PENDING:
        return ()
    return (ev.EventBody(begun_elsewhere=elsewhere(record, len(record.attempts) + 1, error.begun)),)


def busy(folded: RunFold, error: BegunElsewhere) -> ev.EventBody:
    """Why a run waits while a relative is at its next step."""
    title = folded.node(error.step_id).node.title
    detail = f"run {error.begun.run_id} of the same lineage is doing {title!r}; what comes of it is waited for"
    return ev.EventBody(run_blocked=ev.RunBlocked(reason=BUSY_ELSEWHERE, detail=detail))


def _known(record: st.NodeRecord) -> Begun | None:
    """What a run knows that was begun last by another one."""
    elsewhere = [attempt for attempt in record.attempts if attempt.begun_number]
    return Begun(elsewhere[-1].begun_by, elsewhere[-1].begun_number) if elsewhere else None
