"""Erasing what a run said, in one transaction, with the record of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, false, insert, select, update

from control.journal.archive import Archives
from control.journal.erasure import Erase, Erasure, ErasurePage, ErasureQuery, RunNotEnded, digests_in, shown
from control.journal.errors import RunHasForks
from control.journal.event import StoredEvent
from control.journal.journal import Also
from control.journal.queries import archives as files
from control.journal.queries import events, projections, runs
from control.journal.queries.page import page_limit
from control.journal.run import RunHead
from control.journal.schema import approvals, erasures, run_archives, run_commands, run_events
from control.journal.schema import runs as runs_table
from skyagent.run.v1.event_pb2 import RunPhase


def refuse(connection: Connection, erase: Erase, *, locked: bool = False) -> RunHead:
    """The run, when it may be erased. Raise RunNotFound, RunNotEnded, or RunHasForks."""
    head = runs.head(connection, erase.run_id, erase.tenant, locked=locked)
    if not head.terminal:
        raise RunNotEnded(erase.run_id, "erased")
    of_it = runs_table.c.parent_run_id == erase.run_id
    erased = select(erasures.c.run_id).where(erasures.c.seqs == "")
    forks = connection.execute(select(runs_table.c.run_id).where(of_it, runs_table.c.run_id.not_in(erased)))
    if names := forks.scalars().all():
        raise RunHasForks(erase.run_id, names)
    return head


@dataclass(frozen=True, slots=True)
class Removing:
    """Removes what was asked. `archive` is the digest of the run's archive, and of what was made in its place."""

    erase: Erase
    archive: tuple[str, str] | None
    archives: Archives
    also: Also | None

    def all(self, connection: Connection, now_ms: int) -> Erasure | None:
        """The record of it, also when it is there already. Nothing when the run has another archive by now."""
        erase = self.erase
        known = find(connection, erase.erasure_id)
        if known is not None:
            return known
        head = refuse(connection, erase, locked=True)
        kept = files.archive_of(connection, erase.run_id)
        if (kept.digest if kept else None) != (self.archive[0] if self.archive else None):
            return None
        every = list(events.all_of(connection, erase.run_id, self.archives))
        erasure = _erasure(connection, erase, head, every, now_ms)
        if kept is not None and self.archive is not None:
            files.put(connection, erase.run_id, files.KeptArchive(self.archive[1], kept.last_seq), now_ms)
        files.forget_begun(connection, erase.run_id)
        _remove(connection, erase)
        projections.forget_derived(connection, erase.run_id)
        projections.put_projection(connection, erase.run_id, head.head_seq, shown(head, erasure))
        connection.execute(insert(erasures), _row(erasure))
        if self.also is not None:
            self.also(
                connection, erasure, [event.payload for event in every if event.payload and erase.takes(event.seq)]
            )
        return erasure


def _remove(connection: Connection, erase: Erase) -> None:
    """What the events said, and what people were asked and told."""
    gone = update(run_events).where(run_events.c.run_id == erase.run_id).values(payload=None)
    connection.execute(gone.where(run_events.c.seq.in_(erase.seqs)) if erase.seqs else gone)
    connection.execute(update(approvals).where(approvals.c.run_id == erase.run_id).values(body=b"", note=""))
    connection.execute(update(run_commands).where(run_commands.c.run_id == erase.run_id).values(payload=b"", note=None))


def find(connection: Connection, erasure_id: str) -> Erasure | None:
    """One erasure."""
    row = connection.execute(select(erasures).where(erasures.c.erasure_id == erasure_id)).one_or_none()
    return None if row is None else _of(row)


def last_of(connection: Connection, run_id: str) -> Erasure | None:
    """The last erasure of a run."""
    chosen = select(erasures).where(erasures.c.run_id == run_id).order_by(erasures.c.erasure_id.desc()).limit(1)
    row = connection.execute(chosen).one_or_none()
    return None if row is None else _of(row)


def last_of_mission(connection: Connection, mission_id: str, tenant: str) -> Erasure | None:
    """The last erasure of a run of a mission."""
    of_it = select(erasures).where(erasures.c.mission_id == mission_id, erasures.c.tenant == tenant)
    row = connection.execute(of_it.order_by(erasures.c.erasure_id.desc()).limit(1)).one_or_none()
    return None if row is None else _of(row)


def unscrubbed(connection: Connection) -> Sequence[Erasure]:
    """Those of which something may be left in files or free pages."""
    chosen = select(erasures).where(erasures.c.scrubbed == false()).order_by(erasures.c.erasure_id)
    return [_of(row) for row in connection.execute(chosen)]


def scrubbed(connection: Connection, erasure_ids: Sequence[str]) -> None:
    """Nothing is left of these."""
    chosen = update(erasures).where(erasures.c.erasure_id.in_(erasure_ids))
    connection.execute(chosen.values(scrubbed=True, unwanted=""))


def forget_unwanted(connection: Connection, erasure_ids: Sequence[str]) -> None:
    """The blobs of these are removed, or something else names them."""
    connection.execute(update(erasures).where(erasures.c.erasure_id.in_(erasure_ids)).values(unwanted=""))


def page(connection: Connection, query: ErasureQuery) -> ErasurePage:
    """Newest first."""
    limit = page_limit(query.page_size)
    chosen = select(erasures).where(erasures.c.tenant == query.tenant)
    if query.run_id:
        chosen = chosen.where(erasures.c.run_id == query.run_id)
    if query.page_token:
        chosen = chosen.where(erasures.c.erasure_id < query.page_token)
    rows = connection.execute(chosen.order_by(erasures.c.erasure_id.desc()).limit(limit + 1)).all()
    found = tuple(_of(row) for row in rows[:limit])
    return ErasurePage(found, found[-1].erasure_id if len(rows) > limit else "")


def said_anywhere(connection: Connection, archives: Archives) -> Iterator[bytes | None]:
    """Everything that journals say still: of every run, with what people were asked and told."""
    for column in (run_events.c.payload, approvals.c.body, run_commands.c.payload):
        with connection.execute(select(column).execution_options(yield_per=1000)) as rows:
            yield from rows.scalars()
    for kept in connection.execute(select(run_archives.c.run_id, run_archives.c.digest)).all():
        yield kept.digest.encode()
        if files.archive_of(connection, kept.run_id) is not None:
            yield from (event.payload for event in archives.events(kept.digest))


def _erasure(connection: Connection, erase: Erase, head: RunHead, every: Sequence[StoredEvent], now_ms: int) -> Erasure:
    unwanted = digests_in(event.payload for event in every if erase.takes(event.seq))
    asked = select(approvals.c.body).where(approvals.c.run_id == erase.run_id)
    unwanted |= digests_in(connection.execute(asked).scalars())
    before = last_of(connection, erase.run_id)
    listed = runs.listing(connection, erase.run_id, head.tenant).projection
    return Erasure(
        erasure_id=erase.erasure_id,
        run_id=erase.run_id,
        mission_id=head.mission_id,
        tenant=head.tenant,
        seqs=erase.seqs,
        actor=erase.actor,
        reason=erase.reason,
        time_ms=now_ms,
        phase=before.phase if before else listed.state if listed else RunPhase.Name(RunPhase.RUN_PHASE_UNSPECIFIED),
        finished_ms=before.finished_ms if before else every[-1].time_ms,
        unwanted=tuple(sorted(unwanted | {*files.named_archives(connection, erase.run_id)})),
        scrubbed=False,
    )


def _row(erasure: Erasure) -> dict[str, object]:
    return {
        "erasure_id": erasure.erasure_id,
        "run_id": erasure.run_id,
        "mission_id": erasure.mission_id,
        "tenant": erasure.tenant,
        "seqs": " ".join(map(str, erasure.seqs)),
        "actor": erasure.actor,
        "reason": erasure.reason,
        "time_ms": erasure.time_ms,
        "phase": erasure.phase,
        "finished_ms": erasure.finished_ms,
        "unwanted": " ".join(erasure.unwanted),
        "scrubbed": erasure.scrubbed,
    }


def _of(row: Row[Any]) -> Erasure:
    return Erasure(
        erasure_id=row.erasure_id,
        run_id=row.run_id,
        mission_id=row.mission_id,
        tenant=row.tenant,
        seqs=tuple(map(int, row.seqs.split())),
        actor=row.actor,
        reason=row.reason,
        time_ms=row.time_ms,
        phase=row.phase,
        finished_ms=row.finished_ms,
        unwanted=tuple(row.unwanted.split()),
        scrubbed=row.scrubbed,
    )
