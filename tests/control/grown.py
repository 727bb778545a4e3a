"""A data directory as missions leave it: 10,000 events of every kind in runs of several missions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Executable

from control.agentfs import AgentFs, Recorded, RunFolders
from control.agentfs.named import blobs_named
from control.core.run import FOLD_VERSION, RunFold
from control.journal import Command, EventDraft, Journal, NewApproval, NewRun, Node, open_journal
from control.journal.folding import projection
from control.mission_api.store import MissionRow, inserted, with_run
from control.orchestrator.ledger import Also, Ledger
from infra.blobs import BlobStore, open_blobs
from infra.clock import ManualClock
from infra.db import Database, DatabaseSettings, open_database
from infra.ids import Ids, seeded_ids
from infra.settings import Settings
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.run.v1 import event_pb2 as ev
from tests.fold import mixed

EVENTS = 10_000
LENGTHS = (3_000, 1_500, 1_500, 1_000, 1_000, 700, 600, 400, 200, 99, 1)
TENANTS = ("acme", "umbrella")

Dump = dict[str, list[tuple[object, ...]]]


@dataclass
class Growing:
    """What it is grown with."""

    journal: Journal
    agentfs: AgentFs
    clock: ManualClock
    ids: Ids
    artifact: BlobRef
    chance: random.Random

    async def mission(self, number: int, lengths: Sequence[int]) -> None:
        """A mission with a run of each length; every other run has ended."""
        tenant, mission_id = TENANTS[number % 2], self.ids.ulid()
        row = MissionRow(mission_id, tenant, "ann", b"", self.clock.now_ms(), None, "b3:")
        for ordinal, length in enumerate(lengths):
            bodies = self._bodies(seed=100 * number + ordinal, length=length, ended=ordinal % 2 == 0)
            bodies[0].run_created.MergeFrom(
                ev.RunCreated(mission_id=mission_id, tenant=tenant, fold_version=FOLD_VERSION, ordinal=ordinal + 1)
            )
            run_id = await self._created(row, bodies[0], [inserted(row)] if ordinal == 0 else [])
            await self._run(run_id, bodies[1:])

    async def _created(self, mission: MissionRow, body: ev.EventBody, also: list[Executable]) -> str:
        run_id, now_ms, folded = self.ids.ulid(), self.clock.now_ms(), RunFold()
        first = ev.RunEvent(run_id=run_id, seq=1, body=body)
        first.time.FromMilliseconds(now_ms)
        folded.apply(first)
        new = NewRun(
            run_id,
            mission.mission_id,
            mission.tenant,
            FOLD_VERSION,
            (EventDraft.of(body),),
            append_id=self.ids.ulid(),
            projection=projection(folded),
            time_ms=now_ms,
        )
        await self.journal.create_run(new, also=[*also, with_run(mission.mission_id, run_id)])
        return run_id

    async def _run(self, run_id: str, bodies: list[ev.EventBody]) -> None:
        """Written as its owner writes it, by one owner after the other."""
        while bodies:
            part, bodies = bodies[:900], bodies[900:]
            node = Node("node-1", self.ids.uuid())
            heads = await self.journal.claim(node, fold_version=FOLD_VERSION, limit=100)
            ledger = Ledger(self.journal, self.clock, self.ids, next(head for head in heads if head.run_id == run_id))
            await ledger.load()
            while part:
                size = self.chance.randrange(1, 12)
                await self._commit(ledger, part[:size])
                part = part[size:]

    async def _commit(self, ledger: Ledger, bodies: Sequence[ev.EventBody]) -> None:
        tenant, run_id = ledger.head.tenant, ledger.head.run_id
        for body in bodies:
            if body.HasField("artifact_recorded"):
                body.artifact_recorded.artifact_id = self.ids.ulid()
                body.artifact_recorded.blob.CopyFrom(self.artifact)
            await self.agentfs.grant(tenant, blobs_named(body))
        questions = (NewApproval(self.ids.ulid(), "step", "b3:action", self.clock.now_ms() + 1),)
        await ledger.commit(bodies, Also(questions=questions if self.chance.random() < 0.05 else ()))
        for body in bodies:
            if body.HasField("artifact_recorded"):
                await self.agentfs.record(Recorded(tenant, run_id, body.artifact_recorded))
        await self.clock.advance(0.007)

    def _bodies(self, seed: int, length: int, *, ended: bool) -> list[ev.EventBody]:
        """None of them erased: what is missing cannot have been written."""
        bodies = [event.body for event in mixed.journal(seed, length + length // 20 + 5) if not event.erased]
        for body in bodies:
            if body.HasField("owner_changed"):
                body.owner_changed.fold_version = FOLD_VERSION
        return [*bodies[: length - ended], *bodies[len(bodies) - ended :]] if length > 1 else bodies[:1]


async def grow(folder: Path) -> Settings:
    """The data directory of a control plane that has ended."""
    settings = Settings(data_dir=folder)
    clock = ManualClock()
    ids = seeded_ids(3, clock)
    quick = DatabaseSettings(synchronous="OFF")
    async with (
        open_database(settings.journal_path, settings=quick) as database,
        open_journal(database, clock=clock) as journal,
        open_blobs(settings.blobs_dir) as blobs,
    ):
        agentfs = AgentFs(database, RunFolders(settings.agentfs_dir, settings.blobs_dir))
        growing = Growing(journal, agentfs, clock, ids, await _artifact(blobs), random.Random(3))
        await agentfs.give("acme", BlobRef(digest="b3:given", media_type="text/csv"))
        for number, lengths in enumerate((LENGTHS[:2], LENGTHS[2:5], LENGTHS[5:])):
            await growing.mission(number, lengths)
        for head in await journal.heads():
            if not head.terminal:
                await journal.command(Command(ids.uuid(), head.run_id, head.tenant, "STEER", "ann"))
    return settings


async def _artifact(blobs: BlobStore) -> BlobRef:
    stored = await blobs.put(b"a table")
    return BlobRef(digest=stored.digest, size=stored.size, media_type="text/csv", role="artifact")


async def dump(database: Database) -> Dump:
    """Every row of every table, as stored."""

    def read(connection: Connection) -> Dump:
        tables = connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return {
            name: sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {name}")), key=repr)
            for (name,) in tables
        }

    return await database.read(read)
