"""Which events of a run are in a file, and the swap between rows and file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, select, true

from control.journal.schema import run_archives, run_events, runs
from infra.db import insert_into


@dataclass(frozen=True, slots=True)
class KeptArchive:
    """The file with a run's first events."""

    digest: str
    last_seq: int


def archive_of(connection: Connection, run_id: str) -> KeptArchive | None:
    """Where a run's first events are, when they are no rows."""
    chosen = select(run_archives.c.digest, run_archives.c.last_seq).where(
        run_archives.c.run_id == run_id, run_archives.c.done == true()
    )
    row = connection.execute(chosen).one_or_none()
    return None if row is None else KeptArchive(row.digest, row.last_seq)


def named_archives(connection: Connection, run_id: str) -> Sequence[str]:
    """Digests of the run's archive, and of one that was begun and may lie there, too."""
    return connection.execute(select(run_archives.c.digest).where(run_archives.c.run_id == run_id)).scalars().all()


def due(connection: Connection, before_ms: int, limit: int) -> Sequence[str]:
    """Runs that ended before a moment and have events that are not archived, oldest first."""
    last = (
        select(run_events.c.ts_ms)
        .where(run_events.c.run_id == runs.c.run_id, run_events.c.seq == runs.c.head_seq)
        .scalar_subquery()
    )
    unarchived = exists().where(run_events.c.run_id == runs.c.run_id)
    chosen = (
        select(runs.c.run_id)
        .where(runs.c.terminal == true(), unarchived, last < before_ms)
        .order_by(runs.c.run_id)
        .limit(limit)
    )
    return connection.execute(chosen).scalars().all()


def begin(connection: Connection, run_id: str, digest: str, last_seq: int, now_ms: int) -> None:
    """Say which file is about to be written. One that is in use already stays named until the swap."""
    named = insert_into(connection, run_archives).values(
        run_id=run_id, digest=digest, last_seq=last_seq, archived_ms=now_ms, done=False
    )
    said = {"digest": digest, "last_seq": last_seq, "archived_ms": now_ms}
    unfinished = run_archives.c.done != true()
    connection.execute(named.on_conflict_do_update(index_elements=["run_id"], set_=said, where=unfinished))


def swap(
    connection: Connection, run_id: str, archive: KeptArchive, before: str | None, head_hash: bytes, now_ms: int
) -> bool:
    """Put the file in the place of the rows, if the run is as it was when the file was made, and nothing was erased:
    an erasure changes no hash, but it forgets what was begun and replaces what was there before.
    """
    chosen = select(runs.c.head_seq, runs.c.head_hash, runs.c.terminal).where(runs.c.run_id == run_id)
    run = connection.execute(chosen.with_for_update()).one()
    if not run.terminal or run.head_seq != archive.last_seq or run.head_hash != head_hash:
        return False
    kept = archive_of(connection, run_id)
    if (kept.digest if kept else None) != before or (
        before is None and archive.digest not in named_archives(connection, run_id)
    ):
        return False
    put(connection, run_id, archive, now_ms)
    gone = delete(run_events).where(run_events.c.run_id == run_id, run_events.c.seq <= archive.last_seq)
    connection.execute(gone)
    return True


def put(connection: Connection, run_id: str, archive: KeptArchive, now_ms: int) -> None:
    """Name the file that counts from now on."""
    said = {"digest": archive.digest, "last_seq": archive.last_seq, "archived_ms": now_ms, "done": True}
    named = insert_into(connection, run_archives).values({"run_id": run_id, **said})
    connection.execute(named.on_conflict_do_update(index_elements=["run_id"], set_=said))


def forget_begun(connection: Connection, run_id: str) -> None:
    """Drop the name of a file that was begun and never put to use."""
    connection.execute(delete(run_archives).where(run_archives.c.run_id == run_id, run_archives.c.done != true()))
