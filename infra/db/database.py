"""The database of one data directory: one writer, several readers, one holder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from infra.db.engine import reading_engine, writing_engine
from infra.db.failure import corrupt, end_process, storage_failure
from infra.db.migrate import upgrade
from infra.db.writer import BatchHandler, Writer
from infra.disk import explained, held
from infra.errors import SkyError

if TYPE_CHECKING:
    from infra.mesh import Runtime

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


class Database:
    """Writes go through transact() or the hot path, reads through read(). Made by open_database()."""

    def __init__(self, path: Path, writer: Writer, readers: Engine, threads: ThreadPoolExecutor) -> None:
        self.path = path
        self._writer = writer
        self._readers = readers
        self._threads = threads

    async def transact(
        self, run: Callable[[Connection], ResultT], *, committed: Callable[[ResultT], None] | None = None
    ) -> ResultT:
        """Run `run(connection)` in the next batch and return its result once that is durable.

        If it raises, its own changes alone are undone. `committed(result)` is called in the event loop after the
        commit, also when the waiter was cancelled: a cancelled waiter never cancels its write. `run` is in the writer
        thread: it must neither wait, nor touch the loop, nor keep the connection.
        """
        return await self._writer.call(run, committed)

    async def write(self, handler: BatchHandler[ItemT, ResultT], item: ItemT, *, key: str) -> ResultT:
        """The hot path: hand `item` to `handler` together with all others of the batch; one item of a key a batch."""
        return await self._writer.item(handler, item, key=key)

    async def read(self, run: Callable[[Connection], ResultT]) -> ResultT:
        """Run `run(connection)` on one consistent snapshot, in a reader thread, and return its result."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._snapshot, run)

    def _snapshot(self, run: Callable[[Connection], ResultT]) -> ResultT:
        with _sound(self.path), self._readers.connect() as connection:
            connection.exec_driver_sql("BEGIN")
            try:
                return run(connection)
            finally:
                connection.exec_driver_sql("ROLLBACK")


@asynccontextmanager
async def open_database(
    path: Path,
    *,
    settings: DatabaseSettings | None = None,
    on_fatal: Callable[[SkyError], None] = end_process,
) -> AsyncGenerator[Database]:
    """Hold, check, migrate and serve the database at `path` until the block ends.

    Raises Precondition DATA_IN_USE, DATA_UNWRITABLE or DATABASE_TOO_NEW, DataLoss DATABASE_CORRUPT, and
    Exhausted DISK_FULL.
    `on_fatal` is called in the writer thread when storage fails in a way that leaves the outcome unknown.
    """
    chosen = settings or DatabaseSettings()
    with explained(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(path.with_name(path.name + ".lock")):
        connection = await asyncio.to_thread(_prepare, path, chosen)
        try:
            async with _serve(path, connection, chosen, on_fatal) as database:
                yield database
        finally:
            await asyncio.to_thread(_finish, connection)


@asynccontextmanager
async def shared_database(runtime: Runtime) -> AsyncGenerator[Database]:
    """The one of this process: `await runtime.shared(shared_database)`."""
    async with open_database(runtime.settings.journal_path) as database:
        yield database


@asynccontextmanager
async def _serve(
    path: Path, connection: Connection, settings: DatabaseSettings, on_fatal: Callable[[SkyError], None]
) -> AsyncGenerator[Database]:
    writer = Writer(connection, path, max_batch=settings.max_batch, capacity=settings.capacity, on_fatal=on_fatal)
    readers = reading_engine(path, busy_ms=settings.busy_ms, connections=settings.readers)
    threads = ThreadPoolExecutor(settings.readers, thread_name_prefix=f"reader {path.name}")
    writer.start()
    try:
        yield Database(path, writer, readers, threads)
    finally:
        await writer.close()
        await asyncio.to_thread(threads.shutdown)
        readers.dispose()


def _prepare(path: Path, settings: DatabaseSettings) -> Connection:
    with _sound(path):
        # Made here so that nobody else may read it; SQLite gives the -wal and -shm files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        engine = writing_engine(path, busy_ms=settings.busy_ms, synchronous=settings.synchronous)
        connection = engine.connect()
        try:
            _check(connection, path, settings)
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            upgrade(connection)
            connection.exec_driver_sql("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection


def _check(connection: Connection, path: Path, settings: DatabaseSettings) -> None:
    if path.stat().st_size > settings.check_below_bytes:
        return
    verdict = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    if verdict != "ok":
        raise corrupt(path, verdict)


def _finish(connection: Connection) -> None:
    # The log is emptied into the database so that a copy of that one file is complete; not vital, so it may fail.
    with suppress(Exception):
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@contextmanager
def _sound(path: Path) -> Generator[None]:
    """Turn failures of storage into what a person can act on."""
    with explained(path):
        try:
            yield
        except DBAPIError as error:
            failure = storage_failure(error, path)
            if failure is None:
                raise
            raise failure from error
