"""Between what the journal stores and what the contract says: events, folded states and what lists show."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import DecodeError

from control.core.run import FOLD_VERSION, IllegalEvent, RunFold, terminal
from control.core.summary import current_step, summary
from control.journal.erasure import RunErased
from control.journal.errors import FoldTooNew
from control.journal.event import StoredEvent
from control.journal.journal import Journal
from control.journal.run import Projection, RunHead
from infra.errors import DataLoss
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class FoldedRun:
    """The state of a run at its head."""

    head: RunHead
    folded: RunFold


def event_of(stored: StoredEvent) -> ev.RunEvent:
    """A stored event as the contract has it. Raises DataLoss EVENT_UNREADABLE."""
    event = ev.RunEvent(run_id=stored.run_id, seq=stored.seq, epoch=stored.epoch, hash=hash_of(stored.hash))
    event.time.FromMilliseconds(stored.time_ms)
    if stored.payload is None:
        event.erased = True
    else:
        try:
            event.body.ParseFromString(stored.payload)
        except DecodeError as bad:
            where = f"event {stored.seq} of run {stored.run_id}"
            fix = "`skyagent audit verify` tells which runs are hurt; restore the journal from a backup"
            raise DataLoss(
                "EVENT_UNREADABLE", f"{where} is not as it was written; {fix}", run_id=stored.run_id
            ) from bad
    return event


def hash_of(raw: bytes) -> str:
    """A hash of the chain as the contract writes it."""
    return f"b3:{raw.hex()}"


def projection(folded: RunFold) -> Projection:
    """What lists show of a run."""
    state = folded.state
    body = summary(state, current_step(folded)).SerializeToString(deterministic=True)
    return Projection(ev.RunPhase.Name(state.phase), body, terminal=terminal(state.phase))


def require_whole(run_id: str, last_seq: int, head_seq: int) -> None:
    """Raises DataLoss when the last event that there is comes before the one that the run's head names."""
    if last_seq < head_seq:
        fix = "`skyagent audit verify` tells which runs are hurt; restore the journal from a backup"
        raise DataLoss(
            "JOURNAL_GAP", f"run {run_id} ends at event {last_seq}, its head says {head_seq}; {fix}", run_id=run_id
        )


def require_foldable(head: RunHead) -> None:
    """Raises FoldTooNew when a newer program writes the run."""
    if head.fold_version > FOLD_VERSION:
        raise FoldTooNew(head.run_id, head.fold_version, FOLD_VERSION)


async def folded_run(journal: Journal, run_id: str, *, tenant: str | None = None) -> FoldedRun:
    """A run folded up to its head, from its last snapshot on.

    Raises RunNotFound, FoldTooNew, RunErased when too much of it was erased to say how it stands, or DataLoss for a
    missing tail.
    """
    try:
        found = await _folded(journal, run_id, tenant)
    except IllegalEvent:
        await require_unerased(journal, run_id)
        raise
    if not found.folded.state.mission_id:
        await require_unerased(journal, run_id)
    return found


async def require_unerased(journal: Journal, run_id: str) -> None:
    """Raises RunErased when something of the run was erased."""
    erasure = await journal.erasure(run_id)
    if erasure is not None:
        raise RunErased(erasure)


async def _folded(journal: Journal, run_id: str, tenant: str | None) -> FoldedRun:
    while True:
        head = await journal.head(run_id, tenant=tenant)
        require_foldable(head)
        snapshot = await journal.load_snapshot(run_id, fold_version=head.fold_version)
        folded = RunFold(st.RunState.FromString(snapshot.state) if snapshot else None)
        while missing := head.head_seq - folded.state.seq:
            if missing < 0:  # the snapshot was made after the head was read
                break
            page = await journal.read(run_id, after_seq=folded.state.seq, limit=min(missing, _PAGE))
            require_whole(run_id, folded.state.seq, head.head_seq if not page else 0)
            for stored in page:
                folded.apply(event_of(stored))
        if folded.state.seq == head.head_seq:
            return FoldedRun(head, folded)
