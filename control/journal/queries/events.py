"""Events: reading, verifying, erasing."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from struct import error as StructError  # noqa: N812 (it is a class)
from typing import Any

from sqlalchemy import Connection, Row, select, update

from control.journal.archive import NO_ARCHIVES, Archives
from control.journal.chain import event_hash, first_link, fork_link, payload_digest
from control.journal.errors import RunNotFound
from control.journal.event import StoredEvent
from control.journal.journal import Verification
from control.journal.queries.archives import archive_of
from control.journal.queries.projections import forget_derived
from control.journal.schema import run_events, runs
from infra.errors import DataLoss, NotFound

_EVENT = (
    run_events.c.run_id,
    run_events.c.seq,
    run_events.c.append_id,
    run_events.c.epoch,
    run_events.c.kind,
    run_events.c.ts_ms,
    run_events.c.payload,
    run_events.c.payload_digest,
    run_events.c.prev_hash,
    run_events.c.hash,
)


def read(
    connection: Connection, run_id: str, after_seq: int, limit: int, archives: Archives = NO_ARCHIVES
) -> tuple[StoredEvent, ...]:
    """Events after a cursor, in order."""
    chosen = (
        select(*_EVENT)
        .where(run_events.c.run_id == run_id, run_events.c.seq > after_seq)
        .order_by(run_events.c.seq)
        .limit(limit)
    )
    page = tuple(StoredEvent(*row) for row in connection.execute(chosen))
    if page and page[0].seq == after_seq + 1:
        return page
    kept = archive_of(connection, run_id)
    if kept is None or kept.last_seq <= after_seq:
        return page
    return (*archives.events(kept.digest)[after_seq : after_seq + limit], *page)[:limit]


def of_kinds(
    connection: Connection, run_id: str, kinds: Sequence[int], archives: Archives = NO_ARCHIVES
) -> Iterator[bytes | None]:
    """The payloads of a run's events of these kinds, in order."""
    kept = archive_of(connection, run_id)
    if kept is not None:
        yield from (event.payload for event in archives.events(kept.digest) if event.kind in kinds)
    chosen = (
        select(run_events.c.payload)
        .where(run_events.c.run_id == run_id, run_events.c.kind.in_(kinds))
        .order_by(run_events.c.seq)
    )
    with connection.execute(chosen.execution_options(yield_per=1000)) as rows:
        yield from rows.scalars()


def hash_at(connection: Connection, run_id: str, seq: int, archives: Archives = NO_ARCHIVES) -> bytes | None:
    """The hash of one event; nothing when there is none."""
    found = read(connection, run_id, seq - 1, 1, archives) if seq > 0 else ()
    return found[0].hash if found and found[0].seq == seq else None


def erase(connection: Connection, run_id: str, seqs: tuple[int, ...]) -> None:
    """Remove payloads and what was derived from them."""
    gone = update(run_events).where(run_events.c.run_id == run_id, run_events.c.seq.in_(seqs)).values(payload=None)
    connection.execute(gone)
    forget_derived(connection, run_id)


def verify(connection: Connection, run_id: str, archives: Archives = NO_ARCHIVES) -> Verification:
    """Find the first event that is not as it was written, also when it is missing, moved or one too many."""
    try:
        return _verified(connection, run_id, archives)
    except (DataLoss, NotFound) as unreadable:
        if isinstance(unreadable, RunNotFound):
            raise
        return Verification(run_id, 0, 1, f"the archive of events 1 and on cannot be read: {unreadable.message}")


def _verified(connection: Connection, run_id: str, archives: Archives) -> Verification:
    run = connection.execute(select(runs).where(runs.c.run_id == run_id)).one_or_none()
    if run is None:
        raise RunNotFound(run_id)
    prev_hash, seq = _first_link(run), 0
    with closing(all_of(connection, run_id, archives)) as events:
        for event in events:
            seq += 1
            past = "is past the head of its run" if seq > run.head_seq else ""
            if reason := _fault(event, run_id, seq, prev_hash) or past:
                return Verification(run_id, seq, seq, f"event {seq} {reason}")
            prev_hash = event.hash
    if seq != run.head_seq:
        return Verification(run_id, seq, seq + 1, f"event {seq + 1} is missing: the run's head is {run.head_seq}")
    if prev_hash != run.head_hash:
        return Verification(run_id, seq, seq, f"event {seq} does not have the hash that the run's head has")
    return Verification(run_id, seq)


def all_of(connection: Connection, run_id: str, archives: Archives = NO_ARCHIVES) -> Generator[StoredEvent]:
    """Every event of a run, in order: those that are archived, then the others, a page at a time."""
    kept = archive_of(connection, run_id)
    if kept is not None:
        yield from archives.events(kept.digest)
    chosen = select(*_EVENT).where(run_events.c.run_id == run_id).order_by(run_events.c.seq)
    with connection.execute(chosen.execution_options(yield_per=1000)) as rows:
        for row in rows:
            yield StoredEvent(*row)


def _fault(event: StoredEvent, run_id: str, seq: int, prev_hash: bytes) -> str:
    """What is wrong with an event that must have this place; empty when nothing is."""
    if event.seq != seq:
        return f"is missing: event {event.seq} stands in its place"
    if event.prev_hash != prev_hash:
        return "is not chained to the event before it: column prev_hash has another hash than that event"
    try:
        return _altered(event, run_id)
    except (TypeError, ValueError, AttributeError, StructError) as unreadable:  # A column may hold any type by now.
        return f"cannot be read: {unreadable}"


def _altered(event: StoredEvent, run_id: str) -> str:
    """Which column is not as it was hashed, as far as the hashes tell."""
    holds = event.hash == _hash_with(event, run_id, event.payload_digest)
    digest = event.payload_digest if event.payload is None else payload_digest(event.payload)
    if digest == event.payload_digest:
        columns = "seq, epoch, kind, ts_ms, append_id" + (", payload_digest" if event.payload is None else "")
        return "" if holds else f"does not have the hash of what it says: column hash or one of {columns} was changed"
    if holds:
        return "has another payload than was written: column payload was changed"
    if event.hash == _hash_with(event, run_id, digest):
        return "has another payload digest than was written: column payload_digest was changed"
    return "has neither the payload nor the hash that it was written with: columns payload and hash, among others"


def _hash_with(event: StoredEvent, run_id: str, digest: bytes) -> bytes:
    return event_hash(
        event.prev_hash, run_id, event.seq, event.epoch, event.kind, event.time_ms, event.append_id, digest
    )


def _first_link(run: Row[Any]) -> bytes:
    if run.parent_run_id is None:
        return first_link(run.run_id)
    return fork_link(run.run_id, run.parent_run_id, run.parent_seq, run.parent_hash)
