"""The journal on a SQL database: SQLite for one process, PostgreSQL for several."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING

from psycopg.errors import UniqueViolation
from sqlalchemy import Connection, Executable
from sqlalchemy.exc import IntegrityError

from control.core.fairness import Admission
from control.core.lineage import Begun
from control.journal.append import Append, Appended
from control.journal.append_postgres import PostgresAppends
from control.journal.append_sqlite import SqliteAppends
from control.journal.approval import Approval, ApprovalPage, ApprovalQuery
from control.journal.archive import NO_ARCHIVES, archives_in
from control.journal.command import Command, CommandReceipt, StoredCommand
from control.journal.erasure import Erase, Erasure, ErasurePage, ErasureQuery
from control.journal.event import EventDraft, StoredEvent
from control.journal.hub import Hub, wake_topic
from control.journal.journal import Also, Archived, Census, Journal, Named, Scrubbed, Verification
from control.journal.lineage import begun
from control.journal.looks import look_at_journal, read_census
from control.journal.queries import approvals, archives, commands, erasures, events, projections, runs, streams
from control.journal.queries.admission import admitted
from control.journal.queries.create import create_run, requested
from control.journal.retention import Retention
from control.journal.run import Holder, NewRun, Node, Projection, Pulse, RunHead, RunListing, RunPage, RunQuery
from control.journal.snapshot import Snapshot
from control.journal.tail import PAGE, tail
from infra.blobs import BlobStore, shared_blobs
from infra.clock import Clock
from infra.db import EVERYTHING, Database, shared_database
from infra.errors import Internal, InvalidArgument, NotFound, SkyError, Violation
from infra.metrics import NO_METRICS, Metrics
from infra.metrics import catalogue as known

if TYPE_CHECKING:
    from infra.mesh import Runtime


DATABASE = "database"
"""Name of the fact that something can be written."""
Time = Callable[[Connection], int]


class SqlJournal:
    """Implements control.journal.Journal.

    "Database time" is the server's where there is one, else the clock of the one process that may write.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        time: Time | None = None,
        metrics: Metrics = NO_METRICS,
        blobs: BlobStore | None = None,
    ) -> None:
        """Without `blobs` nothing can be archived, erased, or read that was archived."""
        self._db = db
        self._archives = NO_ARCHIVES if blobs is None else archives_in(blobs)
        self._retention = None if blobs is None else Retention(db, blobs, self._archives)
        self._metrics, self._appended = metrics, metrics.buckets(known.JOURNAL_APPEND)
        self._events = metrics.count(known.JOURNAL_EVENTS)

        def own(_: Connection) -> int:
            return clock.now_ms()

        self._now_ms: Time = time or db.system.now_ms or own
        self._hub = Hub()
        appends = PostgresAppends if db.system.shared else SqliteAppends
        self._appends = appends(self._now_ms, self._hub)

    @property
    def shared(self) -> bool:
        return self._db.system.shared

    async def hear(self) -> None:
        """Follows what other processes announce, until cancelled; at once over where there are none."""
        if self._db.system.news is not None:
            async with aclosing(self._db.system.news()) as news:
                async for topics in news:
                    self._hub.heard(topics)

    async def create_run(self, new: NewRun, *, also: Sequence[Executable] = ()) -> RunHead:
        _require_events(new.events)

        def create(connection: Connection) -> tuple[RunHead, bool]:
            now_ms = self._now_ms(connection) if new.time_ms is None else new.time_ms
            return create_run(connection, new, also, now_ms, self._archives)

        def topics(outcome: tuple[RunHead, bool]) -> Iterable[str]:
            return map(wake_topic, _concerned(new)) if outcome[1] else ()

        def wake(outcome: tuple[RunHead, bool]) -> None:
            for run_id in _concerned(new) if outcome[1] else ():
                self._hub.wake(run_id)

        try:
            head, _ = await self._db.transact(create, committed=wake, topics=topics)
        except (
            IntegrityError,
            UniqueViolation,
        ):  # another process was quicker: look again
            head, _ = await self._db.transact(create, committed=wake, topics=topics)
        return head

    async def requested(self, tenant: str, request_id: str) -> RunHead | None:
        return await self._db.read(partial(requested, tenant=tenant, request_id=request_id))

    async def begun(self, lineage: str) -> Mapping[str, Begun]:
        return await self._db.read(partial(begun, lineage=lineage))

    async def append(self, append: Append) -> Appended:
        _require_events(append.events)
        since = self._metrics.seconds()
        try:
            written = await self._db.write(self._appends, append, key=append.run_id)
        except SkyError as refused:
            self._metrics.count(known.JOURNAL_REFUSALS, refused.reason).add()
            raise
        self._appended.observe(self._metrics.seconds() - since)
        self._events.add(len(written.rows))
        return written.appended

    async def command(self, command: Command) -> CommandReceipt:
        def record(connection: Connection) -> CommandReceipt:
            return commands.record(connection, command, self._now_ms(connection))

        return await self._db.transact(
            record,
            committed=lambda receipt: self._hub.wake(receipt.run_id),
            topics=lambda receipt: (wake_topic(receipt.run_id),),
        )

    async def pending_commands(self, run_id: str) -> tuple[StoredCommand, ...]:
        return await self._db.read(partial(commands.pending, run_id=run_id))

    async def commands(self, run_id: str, *, kind: str) -> tuple[StoredCommand, ...]:
        return await self._db.read(partial(commands.given, run_id=run_id, kind=kind))

    async def claim(
        self,
        node: Node,
        *,
        fold_version: int,
        limit: int,
        dead: Collection[Node] = (),
        admission: Admission | None = None,
    ) -> tuple[RunHead, ...]:
        others = runs.not_owned_by(node)
        free = others & runs.left_by(dead) if self._db.system.shared else others
        tried = count()

        def claim(connection: Connection) -> tuple[RunHead, ...]:
            may = free if admission is None else free & admitted(connection, admission, fold_version, free, limit)
            claimed = runs.claim(connection, node, fold_version, limit, may)
            # When the connection was lost in the middle of the commit, the first try may have claimed some, too.
            return (*claimed, *runs.owned_by(connection, node)) if next(tried) else claimed

        return await self._db.transact(claim)

    async def queued(self, *, limit: int) -> tuple[RunListing, ...]:
        return await self._db.read(partial(runs.queued, limit=limit))

    async def release(self, run_id: str, epoch: int) -> None:
        def wake(given_up: bool) -> None:  # noqa: FBT001 (the signature is that of a result)
            if given_up:
                self._hub.wake(run_id)

        await self._db.transact(
            partial(runs.release, run_id=run_id, epoch=epoch),
            committed=wake,
            topics=lambda given_up: (wake_topic(run_id),) if given_up else (),
        )

    async def beats(self) -> Mapping[Node, Pulse]:
        return await self._db.read(runs.beats)

    async def beat(self, node: Node, *, last: int = 0, address: str = "") -> int:
        return await self._db.transact(partial(runs.beat, node=node, last=last, address=address))

    async def leave(self, node: Node) -> None:
        await self._db.transact(partial(runs.leave, node=node), topics=lambda _: (EVERYTHING,))

    async def take_stream(self, worker_id: str, incarnation: str, node: Node) -> int:
        return await self._db.transact(partial(streams.take, worker_id=worker_id, incarnation=incarnation, node=node))

    async def end_stream(self, worker_id: str, generation: int) -> None:
        await self._db.transact(partial(streams.end, worker_id=worker_id, generation=generation))

    async def streams(self, worker_ids: Collection[str]) -> Mapping[str, Holder]:
        return await self._db.read(partial(streams.holders, worker_ids=worker_ids))

    async def head(self, run_id: str, *, tenant: str | None = None) -> RunHead:
        return await self._db.read(partial(runs.head, run_id=run_id, tenant=tenant))

    async def listing(self, run_id: str, *, tenant: str) -> RunListing:
        return await self._db.read(partial(runs.listing, run_id=run_id, tenant=tenant))

    async def runs(self, query: RunQuery) -> RunPage:
        return await self._db.read(partial(runs.list_runs, query=query))

    async def heads(self, *, after: str = "", limit: int = 1000) -> tuple[RunHead, ...]:
        return await self._db.read(partial(runs.heads, after=after, limit=limit))

    async def read(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> tuple[StoredEvent, ...]:
        asked = partial(events.read, run_id=run_id, after_seq=after_seq, limit=limit, archives=self._archives)
        try:
            return await self._db.read(asked)
        except NotFound:  # it was erased meanwhile, and has another archive
            return await self._db.read(asked)

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
        def due(connection: Connection) -> tuple[Approval, ...]:
            return approvals.due(connection, self._now_ms(connection), limit)

        return await self._db.read(due)

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        await self._db.transact(partial(projections.save_snapshot, snapshot=snapshot))

    async def load_snapshot(self, run_id: str, *, fold_version: int) -> Snapshot | None:
        return await self._db.read(partial(projections.load_snapshot, run_id=run_id, fold_version=fold_version))

    async def save_projection(self, run_id: str, seq: int, projection: Projection) -> None:
        put = partial(projections.put_projection, run_id=run_id, seq=seq, projection=projection)
        await self._db.transact(put)

    async def drop_projections(self) -> None:
        await self._db.transact(projections.drop_projections)

    async def archive(self, run_id: str) -> Archived:
        return await self._required().archive(run_id, self._now_ms)

    async def archivable(self, *, before_ms: int, limit: int) -> Sequence[str]:
        return await self._db.read(partial(archives.due, before_ms=before_ms, limit=limit))

    async def erase(self, erase: Erase, *, also: Also | None = None) -> Erasure:
        return await self._required().erase(erase, self._now_ms, also)

    async def erasure(self, run_id: str) -> Erasure | None:
        return await self._db.read(partial(erasures.last_of, run_id=run_id))

    async def erasures(self, query: ErasureQuery) -> ErasurePage:
        return await self._db.read(partial(erasures.page, query=query))

    async def unscrubbed(self) -> Sequence[Erasure]:
        return await self._db.read(erasures.unscrubbed)

    async def scrub(self, some: Sequence[Erasure], *, named: Named) -> Scrubbed:
        return await self._required().scrub(some, named)

    async def mission_erasure(self, mission_id: str, *, tenant: str) -> Erasure | None:
        return await self._db.read(partial(erasures.last_of_mission, mission_id=mission_id, tenant=tenant))

    def _required(self) -> Retention:
        if self._retention is None:
            raise Internal("NO_BLOBS", "this journal was opened without its blobs: nothing can be archived or erased")
        return self._retention

    async def verify(self, run_id: str) -> Verification:
        return await self._db.read(partial(events.verify, run_id=run_id, archives=self._archives))

    async def probe(self) -> None:
        await self._db.transact(lambda connection: runs.probe(connection, self._now_ms(connection)))

    async def census(self) -> Census:
        def count(connection: Connection) -> Census:
            return Census(runs.open_by_state(connection), *approvals.waiting(connection))

        return await self._db.read(count)

    async def log_generation(self) -> int:
        return await self._db.read(runs.log_generation)

    async def begin_generation(self) -> int:
        return await self._db.transact(runs.begin_generation)


@asynccontextmanager
async def open_journal(
    db: Database, *, clock: Clock, metrics: Metrics = NO_METRICS, blobs: BlobStore | None = None
) -> AsyncGenerator[Journal]:
    """The journal over an open database; what was archived can only be read with `blobs`."""
    yield SqlJournal(db, clock, metrics=metrics, blobs=blobs)


@asynccontextmanager
async def shared_journal(runtime: Runtime) -> AsyncGenerator[Journal]:
    """The one of this process: `await runtime.shared(shared_journal)`."""
    database = await runtime.shared(shared_database)
    blobs = await runtime.shared(shared_blobs)
    journal = SqlJournal(database, runtime.clock, metrics=runtime.metrics, blobs=blobs)
    runtime.background("journal.news", journal.hear)
    runtime.health.add(DATABASE, partial(look_at_journal, journal))
    runtime.metrics.read(partial(read_census, journal, runtime.clock))
    yield journal


def _concerned(new: NewRun) -> tuple[str, ...]:
    """The runs whose owners should look when a run was created."""
    return (new.run_id, new.parent.run_id) if new.parent else (new.run_id,)


def _require_events(events: tuple[EventDraft, ...]) -> None:
    if not events:
        raise InvalidArgument(Violation("events", "an append must carry at least one event"))
