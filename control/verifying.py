"""Whether a database is whole: chains, heads, what follows from them, what rows say of each other, and named bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from control.agentfs.schema import artifacts
from control.journal.archive import NO_ARCHIVES, archives_under
from control.journal.erasure import shown as erased
from control.journal.folding import projection
from control.journal.queries.archives import archive_of
from control.journal.queries.erasures import last_of
from control.journal.queries.runs import heads
from control.journal.refold import look_at, refold
from control.journal.run import Projection, RunHead
from control.journal.schema import (
    approvals,
    erasures,
    run_archives,
    run_commands,
    run_events,
    run_projections,
    runs,
    snapshots,
)
from control.mission_api.store import missions
from infra.blobs import damage_of
from infra.digest import digest_of
from infra.errors import SkyError
from infra.refs import blob_refs
from skyagent.run.v1 import event_pb2 as ev

_PAGE = 500
_NAMED = 10
"""How many rows of one kind that are wrong are named."""

Column = sa.Column[Any]
_RELATIONS: tuple[tuple[Column, Column], ...] = (
    *((table.c.run_id, runs.c.run_id) for table in (run_events, run_commands, approvals, artifacts)),
    *((table.c.run_id, runs.c.run_id) for table in (run_archives, erasures)),
    *((table.c.run_id, runs.c.run_id) for table in (run_projections, snapshots)),
    (runs.c.mission_id, missions.c.mission_id),
    (runs.c.parent_run_id, runs.c.run_id),
    (missions.c.current_run_id, runs.c.run_id),
)
"""Columns whose value, where there is one, must be a row elsewhere."""


@dataclass(frozen=True, slots=True)
class Hurt:
    """Something that is not as it was written: `what` is journal, projection, snapshot, relation or blob."""

    what: str
    where: str
    detail: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at, and what was found."""

    runs: int
    events: int
    blobs: int
    hurts: tuple[Hurt, ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """How far it is."""

    run_id: str
    number: int
    of: int


def verify(connection: sa.Connection, blobs: Path | None, told: Callable[[Looked], None]) -> Checked:
    """Looks at everything that one transaction sees, and changes nothing. Without a folder of blobs, not at those."""
    return _Look(connection, blobs, told).all()


@dataclass(slots=True)
class _Look:
    connection: sa.Connection
    blobs: Path | None
    told: Callable[[Looked], None]
    hurts: list[Hurt] = field(default_factory=list[Hurt])
    named: dict[str, str] = field(default_factory=dict[str, str])
    """The run that names each digest."""

    def all(self) -> Checked:
        events, number = 0, 0
        total = self.connection.execute(sa.select(sa.func.count()).select_from(runs)).scalar_one()
        for number, head in enumerate(_every_head(self.connection), 1):
            self._run(head)
            events += head.head_seq
            self.told(Looked(head.run_id, number, total))
        self._relations()
        if self.blobs is not None:
            for digest, run_id in self.named.items():
                if why := damage_of(self.blobs, digest):
                    self.hurts.append(Hurt("blob", digest, f"run {run_id} names it: {why}"))
        return Checked(number, events, len(self.named), tuple(self.hurts))

    def _run(self, head: RunHead) -> None:
        def see(body: ev.EventBody) -> None:
            for blob in blob_refs(body):
                if blob.digest:
                    self.named.setdefault(blob.digest, head.run_id)

        kept = archive_of(self.connection, head.run_id)
        if kept is not None:
            self.named.setdefault(kept.digest, head.run_id)
            if self.blobs is None:  # its events are with those
                return
        try:
            shown = self._derived(head, see)
        except SkyError as error:
            self.hurts.append(Hurt("journal", head.run_id, error.message))
            return
        self._projection(head, shown)
        self._snapshot(head)

    def _derived(self, head: RunHead, see: Callable[[ev.EventBody], None]) -> Projection:
        """What lists must show. Raises SkyError for a journal that is not as it was written."""
        archives = NO_ARCHIVES if self.blobs is None else archives_under(self.blobs)
        erasure = last_of(self.connection, head.run_id)
        if erasure is None:
            return projection(refold(self.connection, head, None, see, archives).folded)
        look_at(self.connection, head, see, archives)
        return erased(head, erasure)

    def _projection(self, head: RunHead, shown: Projection) -> None:
        chosen = sa.select(run_projections).where(run_projections.c.run_id == head.run_id)
        row = self.connection.execute(chosen).one_or_none()
        if head.terminal != shown.terminal:
            said = "has ended" if head.terminal else "has not ended"
            self.hurts.append(Hurt("projection", head.run_id, f"its row says that it {said}, its journal does not"))
        if row is not None and (row.seq, row.state, row.body) != (head.head_seq, shown.state, shown.body):
            self.hurts.append(Hurt("projection", head.run_id, "lists show another state than its journal says"))

    def _snapshot(self, head: RunHead) -> None:
        row = self.connection.execute(sa.select(snapshots).where(snapshots.c.run_id == head.run_id)).one_or_none()
        if row is not None and digest_of(row.state) != row.digest:
            self.hurts.append(Hurt("snapshot", head.run_id, f"the state kept after event {row.seq} was changed"))

    def _relations(self) -> None:
        for column, wanted in _RELATIONS:
            there = wanted.table.alias()
            found = sa.exists().where(there.c[wanted.name] == column)
            loose = sa.select(column).where(column.is_not(None), column != "", ~found).distinct().limit(_NAMED)
            for (value,) in self.connection.execute(loose):
                self.hurts.append(
                    Hurt("relation", str(value), f"{column} names it, and {wanted.table.name} has no such row")
                )


def _every_head(connection: sa.Connection) -> Iterator[RunHead]:
    last = ""
    while page := heads(connection, last, _PAGE):
        yield from page
        last = page[-1].run_id
