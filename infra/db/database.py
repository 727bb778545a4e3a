"""A database in use: one writer, several readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from infra.db.backend import Backend
from infra.db.failure import end_process
from infra.db.writer import BatchHandler, Writer
from infra.errors import SkyError
from infra.metrics import NO_METRICS, Metrics

EVERYTHING = "*"
"""The topic of everybody who waits for anything."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """How one database is written and read."""

    synchronous: str = "FULL"  # NORMAL may lose the last commits when the power fails.
    busy_ms: int = 5000
    max_batch: int = 512
    capacity: int = 4096
    readers: int = 4
    check_below_bytes: int = 64 * 1024 * 1024  # A larger file is not read through at every start.


@dataclass(frozen=True, slots=True)
class System:
    """What users of a database may have to know of the system below."""

    name: str
    """The file or the address, as messages name it."""
    shared: bool
    """Whether other processes write here, too."""
    begin_reading: str
    """What begins a transaction that sees one state."""
    explained: Callable[[DBAPIError], SkyError | None]
    """What a person should be told of an error; nothing when it is the statement that is wrong."""
    now_ms: Callable[[Connection], int] | None = None
    """The database's own time, where it has one that all processes share."""
    news: Callable[[], AsyncGenerator[frozenset[str]]] | None = None
    """Topics that other processes announced; what was lost meanwhile shows as EVERYTHING."""


class Database:
    """Writes go through transact() or the hot path, reads through read()."""

    def __init__(self, system: System, writer: Writer, readers: Engine, threads: ThreadPoolExecutor) -> None:
        self.system = system
        self._writer = writer
        self._readers = readers
        self._threads = threads

    async def transact(
        self,
        run: Callable[[Connection], ResultT],
        *,
        committed: Callable[[ResultT], None] | None = None,
        topics: Callable[[ResultT], Iterable[str]] | None = None,
    ) -> ResultT:
        """Run `run(connection)` in the next batch and return its result once that is durable.

        If it raises, its own changes alone are undone. `committed(result)` is called in the event loop after the
        commit, also when the waiter was cancelled: a cancelled waiter never cancels its write. `topics(result)` names
        what other processes should look at. `run` is in the writer thread: it must neither wait, nor touch the loop,
        nor keep the connection; and it may run again when a connection is lost in the middle of its commit.
        """
        return await self._writer.call(run, committed, topics)

    async def write(self, handler: BatchHandler[ItemT, ResultT], item: ItemT, *, key: str) -> ResultT:
        """The hot path: hand `item` to `handler` together with all others of the batch; one item of a key a batch."""
        return await self._writer.item(handler, item, key=key)

    async def scrub(self) -> bool:
        """Overwrite what was deleted, in the database and its log; whether nothing is left of it.

        Nobody writes meanwhile. It takes as long as writing the whole database, and as much room.
        """
        return await self._writer.scrub()

    async def read(self, run: Callable[[Connection], ResultT]) -> ResultT:
        """Run `run(connection)` on one consistent snapshot, in a reader thread, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._snapshot, run)

    def _snapshot(self, run: Callable[[Connection], ResultT]) -> ResultT:
        with explained_by(self.system), self._readers.connect() as connection:
            connection.exec_driver_sql(self.system.begin_reading)
            try:
                return run(connection)
            finally:
                connection.exec_driver_sql("ROLLBACK")


@asynccontextmanager
async def serving(
    system: System,
    backend: Backend,
    readers: Engine,
    settings: DatabaseSettings,
    on_fatal: Callable[[SkyError], None] = end_process,
    metrics: Metrics = NO_METRICS,
) -> AsyncGenerator[Database]:
    """A database over a writing backend and an engine that reads, until the block ends."""
    sizes = {"max_batch": settings.max_batch, "capacity": settings.capacity}
    writer = Writer(backend, system.name, **sizes, on_fatal=on_fatal, metrics=metrics)
    threads = ThreadPoolExecutor(settings.readers, thread_name_prefix=f"reader {system.name}")
    writer.start()
    try:
        yield Database(system, writer, readers, threads)
    finally:
        await writer.close()
        await asyncio.to_thread(threads.shutdown)
        readers.dispose()


@contextmanager
def explained_by(system: System) -> Generator[None]:
    """Turn errors of the database into what a person can act on."""
    try:
        yield
    except DBAPIError as error:
        failure = system.explained(error)
        if failure is None:
            raise
        raise failure from error
