"""A journal on a real file, with a clock and ids that the test owns."""

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy import Connection

from control.journal import (
    Append,
    Command,
    CommandReceipt,
    Erase,
    EventDraft,
    Journal,
    NewApproval,
    NewRun,
    Node,
    Projection,
    RunHead,
    SqlJournal,
)
from infra.blobs import BlobStore, open_blobs
from infra.clock import ManualClock
from infra.db import Database, DatabaseSettings, open_database, open_postgres
from infra.ids import Ids, seeded_ids

RESULT = EventDraft(7, b"result")
INTENT = EventDraft(5, b"intent")
TENANT = "acme"


@dataclass(frozen=True)
class World:
    """The parts, and short words for what most tests do first."""

    db: Database
    journal: Journal
    clock: ManualClock
    ids: Ids
    node: Node
    blobs: BlobStore

    def new_run(self, tenant: str = TENANT) -> NewRun:
        return NewRun(self.ids.ulid(), self.ids.ulid(), tenant, 1, (EventDraft(1, b"created"),), self.ids.ulid())

    async def created(self, tenant: str = TENANT) -> RunHead:
        return await self.journal.create_run(self.new_run(tenant))

    async def owned(self, tenant: str = TENANT) -> RunHead:
        run = await self.created(tenant)
        claimed = await self.journal.claim(self.node, fold_version=1, limit=100)
        return next(head for head in claimed if head.run_id == run.run_id)

    def result(self, run: RunHead, *events: EventDraft) -> Append:
        """An append of results at the head of the run."""
        return Append(run.run_id, run.epoch, run.head_seq, events or (RESULT,), self.ids.ulid())

    def intent(self, run: RunHead) -> Append:
        """An append that must know every command."""
        return replace(self.result(run, INTENT), control_gen=run.control_gen)

    async def ended(self, *events: EventDraft) -> RunHead:
        """A run that has ended with these events."""
        run = await self.owned()
        over = Projection("RUN_PHASE_SUCCEEDED", b"summary", terminal=True)
        await self.journal.append(replace(self.result(run, *events), projection=over))
        return await self.journal.head(run.run_id)

    def erase(self, run: RunHead, *seqs: int) -> Erase:
        """What somebody asks who wants these events erased, or all of them."""
        return Erase(self.ids.ulid(), run.run_id, run.tenant, seqs, "ann", "she asked for it")

    async def taken_over(self) -> tuple[RunHead, ...]:
        """Another node claims everything, as if this one were dead."""
        return await self.journal.claim(Node("node-2", self.ids.uuid()), fold_version=1, limit=100)

    async def told(self, run: RunHead, kind: str = "pause") -> CommandReceipt:
        return await self.journal.command(Command(self.ids.uuid(), run.run_id, run.tenant, kind, "ann"))

    def question(self, ttl_ms: int = 60_000) -> NewApproval:
        return NewApproval(self.ids.ulid(), self.ids.ulid(), "b3:action", self.clock.now_ms() + ttl_ms, b"may I?")

    @asynccontextmanager
    async def stalled(self) -> AsyncGenerator[None]:
        """Keeps the writer busy: what is written meanwhile becomes one batch, committed when the block has ended."""
        entered, gate = threading.Event(), threading.Event()

        def wait(_connection: Connection) -> None:
            entered.set()
            gate.wait(10)

        waiting = asyncio.ensure_future(self.db.transact(wait))
        await asyncio.to_thread(entered.wait, 10)
        try:
            yield
        finally:
            gate.set()
            await waiting
        await self.db.transact(lambda _connection: None)


@asynccontextmanager
async def opened(place: Path | str, seed: int = 7, synchronous: str = "FULL") -> AsyncGenerator[World]:
    """A journal on SQLite, or on PostgreSQL when the place is an address; its time is the test's own."""
    clock = ManualClock()
    ids = seeded_ids(seed, clock)
    with TemporaryDirectory() as folder:
        files = place.parent if isinstance(place, Path) else Path(folder)
        async with database(place, synchronous) as db, open_blobs(files / "blobs") as blobs:
            journal = SqlJournal(db, clock, time=lambda _: clock.now_ms(), blobs=blobs)
            yield World(db, journal, clock, ids, Node("node-1", ids.uuid()), blobs)


def database(place: Path | str, synchronous: str) -> AbstractAsyncContextManager[Database]:
    if isinstance(place, Path):
        return open_database(place, settings=DatabaseSettings(synchronous=synchronous))
    return open_postgres(place, who="test")
