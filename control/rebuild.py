"""Makes everything again that follows from the journals, and says whether the same bytes came back.

Offline, and in one transaction: whoever kills it half-way has changed nothing. A run whose journal is not as it was
written, or that this program cannot fold, keeps what is there and is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import sqlalchemy as sa
from blake3 import blake3

from control.agentfs.named import blobs_named
from control.agentfs.rows import ArtifactRow, artifact_row, drop_derived, drop_named_grants, grant_named, list_artifact
from control.agentfs.schema import artifacts, blob_grants
from control.journal.archive import NO_ARCHIVES, Archives
from control.journal.queries.erasures import last_of
from control.journal.queries.runs import heads
from control.journal.refold import look_at, refold, rewrite, rewrite_erased
from control.journal.run import RunHead
from control.journal.schema import run_projections, runs, snapshots
from control.mission_api.store import latest_runs, missions
from infra.db import Database
from infra.errors import SkyError
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.run.v1 import event_pb2 as ev

_PAGE = 500
_Rows = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rebuild has come."""

    run_id: str
    number: int
    of: int
    events: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A table, or the columns of one, before and after. `different` names a row that is not as it was, by its key."""

    name: str
    dropped: int
    rebuilt: int
    changed: int
    different: str = ""


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """A run that could not be made again, and why."""

    run_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a rebuild found."""

    runs: int
    events: int
    tables: tuple[Rebuilt, ...]
    left_alone: tuple[LeftAlone, ...]

    @property
    def same(self) -> bool:
        """Whether everything came back byte for byte."""
        return not self.left_alone and not any(table.changed for table in self.tables)


DERIVED: Mapping[str, sa.Select[*tuple[object, ...]]] = MappingProxyType(
    {
        "run_projections": sa.select(run_projections),
        "snapshots": sa.select(snapshots),
        "runs: mission_id, tenant, fold_version, created_ms, terminal": sa.select(
            runs.c.run_id, runs.c.mission_id, runs.c.tenant, runs.c.fold_version, runs.c.created_ms, runs.c.terminal
        ),
        "missions: current_run_id, run_count": sa.select(
            missions.c.mission_id, missions.c.current_run_id, missions.c.run_count
        ),
        "artifacts": sa.select(artifacts),
        "blob_grants: of events": sa.select(blob_grants).where(blob_grants.c.given == sa.false()),
    }
)
"""All that follows from events; each begins with its table's key."""


async def rebuild(database: Database, told: Callable[[Progress], None], archives: Archives = NO_ARCHIVES) -> Report:
    """Drops and makes again all that is derived; `told` is called in another thread, once a run."""
    return await database.transact(lambda connection: _Rebuild(connection, told, archives).all())


@dataclass(slots=True)
class _Rebuild:
    connection: sa.Connection
    told: Callable[[Progress], None]
    archives: Archives
    left_alone: list[LeftAlone] = field(default_factory=list[LeftAlone])
    named: dict[tuple[str, str], list[BlobRef]] = field(default_factory=dict[tuple[str, str], list[BlobRef]])
    events: int = 0

    def all(self) -> Report:
        before = {name: _rows(self.connection, chosen) for name, chosen in DERIVED.items()}
        kept = {row.run_id: row.seq for row in self.connection.execute(sa.select(snapshots.c.run_id, snapshots.c.seq))}
        every = _every_head(self.connection)
        for number, head in enumerate(every, 1):
            self._run(head, kept.get(head.run_id))
            self.events += head.head_seq
            self.told(Progress(head.run_id, number, len(every), head.head_seq))
        self._of_all_runs()
        after = {name: _rows(self.connection, chosen) for name, chosen in DERIVED.items()}
        tables = tuple(_compared(name, before[name], after[name]) for name in DERIVED)
        return Report(len(every), self.events, tables, tuple(self.left_alone))

    def _run(self, head: RunHead, kept_seq: int | None) -> None:
        bodies = list[ev.EventBody]()

        def see(body: ev.EventBody) -> None:
            if blobs_named(body):
                bodies.append(body)

        erasure = last_of(self.connection, head.run_id)
        try:
            if erasure is None:
                refolded = refold(self.connection, head, kept_seq, see, self.archives)
                tenant, made = refolded.tenant, partial(rewrite, self.connection, refolded)
            else:
                look_at(self.connection, head, see, self.archives)
                tenant, made = head.tenant, partial(rewrite_erased, self.connection, head, erasure)
        except SkyError as error:
            self.left_alone.append(LeftAlone(head.run_id, error.message))
            return
        made()
        drop_derived(self.connection, head.run_id)
        for row in _listed(tenant, head.run_id, bodies):
            list_artifact(self.connection, row)
        for blob in (blob for body in bodies for blob in blobs_named(body)):
            self.named.setdefault((tenant, blob.digest), []).append(blob)

    def _of_all_runs(self) -> None:
        for table in (run_projections, snapshots, artifacts):
            self.connection.execute(sa.delete(table).where(table.c.run_id.not_in(sa.select(runs.c.run_id))))
        if not self.left_alone:  # else some may follow from what nobody can read now
            drop_named_grants(self.connection)
        for (tenant, _), blobs in self.named.items():
            grant_named(self.connection, tenant, blobs)
        latest_runs(self.connection)


def _every_head(connection: sa.Connection) -> list[RunHead]:
    found = list[RunHead]()
    while page := heads(connection, found[-1].run_id if found else "", _PAGE):
        found += page
    return found


def _listed(tenant: str, run_id: str, bodies: list[ev.EventBody]) -> list[ArtifactRow]:
    made = [body.artifact_recorded for body in bodies if body.HasField("artifact_recorded")]
    return [artifact_row(tenant, run_id, artifact) for artifact in made]


def _rows(connection: sa.Connection, chosen: sa.Select[*tuple[object, ...]]) -> _Rows:
    """The digest of each row, by its key as text."""
    (table,) = chosen.get_final_froms()
    width = len(list(table.primary_key))
    rows = (tuple(row) for row in connection.execute(chosen.execution_options(yield_per=_PAGE)))
    return {" ".join(map(str, row[:width])): blake3(repr(row).encode()).digest() for row in rows}


def _compared(name: str, before: _Rows, after: _Rows) -> Rebuilt:
    different = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    return Rebuilt(name, len(before), len(after), len(different), next(iter(different), ""))
