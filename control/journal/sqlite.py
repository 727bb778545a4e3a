"""The journal on SQLite: one process, one writer thread."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Executable

from control.journal.append import Append, Appended
from control.journal.append_batch import AppendBatch
from control.journal.approval import Approval, ApprovalPage, ApprovalQuery
from control.journal.command import Command, CommandReceipt, StoredCommand
from control.journal.event import EventDraft, StoredEvent
from control.journal.hub import Hub
from control.journal.journal import Journal, Verification
from control.journal.queries import approvals, commands, events, projections, runs
from control.journal.queries.create import create_run
from control.journal.run import NewRun, Node, Projection, RunHead, RunListing, RunPage, RunQuery
from control.journal.snapshot import Snapshot
from control.journal.tail import PAGE, tail
from infra.clock import Clock
from infra.db import Database, shared_database
from infra.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from infra.mesh import Runtime


class SqliteJournal:
    """Implements control.journal.Journal. "Database time" is the clock of the one process that may write."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._hub = Hub()
        self._appends = AppendBatch(clock, self._hub)

    async def create_run(self, new: NewRun, *, also: Sequence[Executable] = ()) -> RunHead:
        _require_events(new.events)

        def create(connection: Connection) -> tuple[RunHead, bool]:
            now_ms = self._clock.now_ms() if new.time_ms is None else new.time_ms
            return create_run(connection, new, also, now_ms)

        head, _ = await self._db.transact(create, committed=self._wake_for_new)
        return head

    async def append(self, append: Append) -> Appended:
        _require_events(append.events)
        written = await self._db.write(self._appends, append, key=append.run_id)
        return written.appended

    async def command(self, command: Command) -> CommandReceipt:
        def record(connection: Connection) -> CommandReceipt:
            return commands.record(connection, command, self._clock.now_ms())

        return await self._db.transact(record, committed=lambda receipt: self._hub.wake(receipt.run_id))

    async def pending_commands(self, run_id: str) -> tuple[StoredCommand, ...]:
        return await self._db.read(partial(commands.pending, run_id=run_id))

    async def claim(self, node: Node, *, fold_version: int, limit: int) -> tuple[RunHead, ...]:
        return await self._db.transact(partial(runs.claim, node=node, fold_version=fold_version, limit=limit))

    async def release(self, run_id: str, epoch: int) -> None:
        def wake(given_up: bool) -> None:  # noqa: FBT001 (the signature is that of a result)
            if given_up:
                self._hub.wake(run_id)

        await self._db.transact(partial(runs.release, run_id=run_id, epoch=epoch), committed=wake)

    async def beat(self, node: Node) -> int:
        return await self._db.transact(partial(runs.beat, node=node))

    async def head(self, run_id: str, *, tenant: str | None = None) -> RunHead:
        return await self._db.read(partial(runs.head, run_id=run_id, tenant=tenant))

    async def listing(self, run_id: str, *, tenant: str) -> RunListing:
        return await self._db.read(partial(runs.listing, run_id=run_id, tenant=tenant))

    async def runs(self, query: RunQuery) -> RunPage:
        return await self._db.read(partial(runs.list_runs, query=query))

    async def heads(self, *, after: str = "", limit: int = 1000) -> tuple[RunHead, ...]:
        return await self._db.read(partial(runs.heads, after=after, limit=limit))

    async def read(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> tuple[StoredEvent, ...]:
        return await self._db.read(partial(events.read, run_id=run_id, after_seq=after_seq, limit=limit))

    def tail(self, run_id: str, *, after_seq: int = 0) -> AsyncGenerator[StoredEvent]:
        async def page(seen: int) -> tuple[StoredEvent, ...]:
            return await self.read(run_id, after_seq=seen, limit=PAGE)

        return tail(self._hub, page, run_id, after_seq)

    async def wakes(self) -> AsyncGenerator[str]:
        with self._hub.listening() as listener:
            while True:
                for run_id in await listener.take():
                    yield run_id

    async def approval(self, approval_id: str, *, tenant: str | None = None) -> Approval:
        return await self._db.read(partial(approvals.find, approval_id=approval_id, tenant=tenant))

    async def approvals(self, query: ApprovalQuery) -> ApprovalPage:
        return await self._db.read(partial(approvals.list_approvals, query=query))

    async def due_approvals(self, *, limit: int = 100) -> tuple[Approval, ...]:
        return await self._db.read(partial(approvals.due, now_ms=self._clock.now_ms(), limit=limit))

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        await self._db.transact(partial(projections.save_snapshot, snapshot=snapshot))

    async def load_snapshot(self, run_id: str, *, fold_version: int) -> Snapshot | None:
        return await self._db.read(partial(projections.load_snapshot, run_id=run_id, fold_version=fold_version))

    async def save_projection(self, run_id: str, seq: int, projection: Projection) -> None:
        put = partial(projections.put_projection, run_id=run_id, seq=seq, projection=projection)
        await self._db.transact(put)

    async def drop_projections(self) -> None:
        await self._db.transact(projections.drop_projections)

    async def erase(self, run_id: str, seqs: tuple[int, ...]) -> None:
        await self._db.transact(partial(events.erase, run_id=run_id, seqs=seqs))

    async def verify(self, run_id: str) -> Verification:
        return await self._db.read(partial(events.verify, run_id=run_id))

    async def log_generation(self) -> int:
        return await self._db.read(runs.log_generation)

    async def begin_generation(self) -> int:
        return await self._db.transact(runs.begin_generation)

    def _wake_for_new(self, outcome: tuple[RunHead, bool]) -> None:
        head, created = outcome
        if created:
            self._hub.wake(head.run_id)


@asynccontextmanager
async def open_journal(db: Database, *, clock: Clock) -> AsyncGenerator[Journal]:
    """The journal over an open database."""
    yield SqliteJournal(db, clock)


@asynccontextmanager
async def shared_journal(runtime: Runtime) -> AsyncGenerator[Journal]:
    """The one of this process: `await runtime.shared(shared_journal)`."""
    database = await runtime.shared(shared_database)
    async with open_journal(database, clock=runtime.clock) as journal:
        yield journal


def _require_events(events: tuple[EventDraft, ...]) -> None:
    if not events:
        raise InvalidArgument(Violation("events", "an append must carry at least one event"))
