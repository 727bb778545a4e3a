"""Between what the journal stores and what the contract says: events, folded states and what lists show."""

from __future__ import annotations

from control.core.run import RunFold, terminal
from control.core.summary import current_step, summary
from control.journal.event import StoredEvent
from control.journal.journal import Journal
from control.journal.run import Projection, RunHead
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

_PAGE = 1000


def event_of(stored: StoredEvent) -> ev.RunEvent:
    """A stored event as the contract has it."""
    event = ev.RunEvent(run_id=stored.run_id, seq=stored.seq, epoch=stored.epoch, hash=hash_of(stored.hash))
    event.time.FromMilliseconds(stored.time_ms)
    if stored.payload is None:
        event.erased = True
    else:
        event.body.ParseFromString(stored.payload)
    return event


def hash_of(raw: bytes) -> str:
    """A hash of the chain as the contract writes it."""
    return f"b3:{raw.hex()}"


def projection(folded: RunFold) -> Projection:
    """What lists show of a run."""
    state = folded.state
    body = summary(state, current_step(folded)).SerializeToString(deterministic=True)
    return Projection(ev.RunPhase.Name(state.phase), body, terminal=terminal(state.phase))


async def folded_run(journal: Journal, head: RunHead) -> RunFold:
    """The fold of a run's journal up to at least `head`, from its last snapshot on."""
    snapshot = await journal.load_snapshot(head.run_id, fold_version=head.fold_version)
    folded = RunFold(st.RunState.FromString(snapshot.state) if snapshot else None)
    while page := await journal.read(head.run_id, after_seq=folded.state.seq, limit=_PAGE):
        for stored in page:
            folded.apply(event_of(stored))
    return folded
