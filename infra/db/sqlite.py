"""SQLite: a file, held by one process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from infra.db.backend import Fate
from infra.db.database import Database, DatabaseSettings, System, explained_by, serving
from infra.db.engine import driver_connection, reading_engine, writing_engine
from infra.db.failure import corrupt, end_process, outcome_unknown, storage_failure
from infra.db.migrate import upgrade
from infra.disk import explained, held
from infra.errors import Exhausted, SkyError, Unavailable
from infra.metrics import NO_METRICS, Metrics


@asynccontextmanager
async def open_database(
    path: Path,
    *,
    settings: DatabaseSettings | None = None,
    on_fatal: Callable[[SkyError], None] = end_process,
    metrics: Metrics = NO_METRICS,
) -> AsyncGenerator[Database]:
    """Hold, check, migrate and serve the file at `path` until the block ends.

    Raises Precondition DATA_IN_USE, DATA_UNWRITABLE or DATABASE_TOO_NEW, DataLoss DATABASE_CORRUPT, and
    Exhausted DISK_FULL.
    `on_fatal` is called in the writer thread when storage fails in a way that leaves the outcome unknown.
    """
    chosen = settings or DatabaseSettings()
    system = System(str(path), shared=False, begin_reading="BEGIN", explained=partial(storage_failure, path=path))
    with explained(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with held(path.with_name(path.name + ".lock")):
        backend = SqliteBackend(await asyncio.to_thread(_prepare, path, system, chosen), path)
        readers = reading_engine(path, busy_ms=chosen.busy_ms, connections=chosen.readers)
        try:
            async with serving(system, backend, readers, chosen, on_fatal, metrics) as database:
                yield database
        finally:
            await asyncio.to_thread(backend.close)


class SqliteBackend:
    """Implements infra.db.backend.Backend over the one writing connection of a file."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self._connection = connection
        self._driver = driver_connection(connection)
        self._path = path

    @property
    def connection(self) -> Connection:
        return self._connection

    def begin(self) -> None:
        self._driver.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._driver.execute("COMMIT")

    def rollback(self) -> None:
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")

    def announce(self, topics: frozenset[str]) -> None:
        """Nobody else has the file: who waits in this process is told after the commit."""

    def scrub(self) -> bool:
        """Every page is written anew, since a page that was split may still hold what left it; then the log is emptied.

        That waits until no reader is at an earlier state.
        """
        self._driver.execute("VACUUM")
        busy, *_ = self._driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def fate(self, error: BaseException) -> Fate:
        failure = storage_failure(error, self._path)
        if failure is None:
            return Fate.DATA
        return Fate.REFUSED if isinstance(failure, Unavailable | Exhausted) else Fate.FATAL

    def explained(self, error: BaseException) -> SkyError:
        return storage_failure(error, self._path) or outcome_unknown(self._path)

    def outcome_unknown(self) -> SkyError:
        return outcome_unknown(self._path)

    def close(self) -> None:
        # The log is emptied into the database so that a copy of that one file is complete; not vital, so it may fail.
        with suppress(Exception):
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()


def _prepare(path: Path, system: System, settings: DatabaseSettings) -> Connection:
    with explained(path), explained_by(system):
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
