"""The database of the simulation: the real journal and the real writer over SQLite in memory, without their threads.

One connection stands for the disk, and outlives every process. What a process hands to its writer is committed at some
later moment, in one piece, by the writer's own code; a process killed before that moment has lost it, one killed
between the commit and its answer does not know. Reads see one state, at some moment between question and answer.

Several nodes share it by the rules of ownership that hold on a shared database; the statements are those of SQLite,
which the journal's model test holds equal to those of PostgreSQL.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from random import Random
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool

from infra.db import Database, metadata
from infra.db.backend import Fate
from infra.db.database import System
from infra.db.engine import driver_connection
from infra.db.migrate import upgrade
from infra.db.writer import Writer
from infra.errors import SkyError, Unavailable
from tests.simulation.loop import PROCESS, Process, VirtualLoop

T = TypeVar("T")


class Disk:
    """The tables, made once by the real migrations and emptied for each schedule."""

    def __init__(self) -> None:
        from infra.db.engine import _driver  # noqa: PLC0415  # pyright: ignore -- the driver that is safe

        engine = create_engine("sqlite://", module=_driver, poolclass=StaticPool, isolation_level="AUTOCOMMIT")
        self.connection = engine.connect()
        driver_connection(self.connection).isolation_level = None
        self.connection.exec_driver_sql("BEGIN")
        upgrade(self.connection)
        self.connection.exec_driver_sql("COMMIT")
        self._driver = driver_connection(self.connection)
        kept = {table: self._driver.execute(f"SELECT * FROM {table}").fetchall() for table in self._tables()}
        self._kept = {table: rows for table, rows in kept.items() if rows}
        self.buried: list[object] = []
        """See VirtualLoop.buried."""

    def empty(self) -> None:
        """As after the migrations."""
        self._driver.execute("BEGIN")
        for table in self._tables():
            self._driver.execute(f"DELETE FROM {table}")
            for row in self._kept.get(table, ()):
                self._driver.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        self._driver.execute("COMMIT")

    def _tables(self) -> list[str]:
        return [table.name for table in metadata.sorted_tables]


class News:
    """What committed writes announce to other nodes: late, out of order, sometimes not at all."""

    def __init__(self, loop: VirtualLoop, chance: Random) -> None:
        self._loop, self._chance = loop, chance
        self._listeners: dict[int, tuple[Process, asyncio.Queue[frozenset[str]]]] = {}
        self._numbers = 0

    def announce(self, topics: frozenset[str]) -> None:
        for process, queue in self._listeners.values():
            if topics and self._chance.random() > 0.05:
                self._loop.call_later(
                    self._chance.expovariate(200), queue.put_nowait, topics, context=process.context()
                )

    async def listen(self, process: Process) -> AsyncGenerator[frozenset[str]]:
        queue: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        self._numbers += 1
        self._listeners[self._numbers] = process, queue
        while True:
            yield await queue.get()

    def forget(self, process: Process) -> None:
        self._listeners = {n: one for n, one in self._listeners.items() if one[0] is not process}


class _MemoryBackend:
    """Implements infra.db.backend.Backend over the one connection."""

    def __init__(self, disk: Disk, news: News) -> None:
        self._driver, self._connection, self._news = driver_connection(disk.connection), disk.connection, news
        self._topics: frozenset[str] = frozenset()

    @property
    def connection(self) -> Connection:
        return self._connection

    def begin(self) -> None:
        self._driver.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self._driver.execute("COMMIT")
        self._news.announce(self._topics)

    def rollback(self) -> None:
        if self._driver.in_transaction:
            self._driver.execute("ROLLBACK")

    def announce(self, topics: frozenset[str]) -> None:
        self._topics = topics

    def scrub(self) -> bool:
        """Nothing of it lies in files."""
        return True

    def fate(self, error: BaseException) -> Fate:
        return Fate.DATA

    def explained(self, error: BaseException) -> SkyError:
        return self.outcome_unknown()

    def outcome_unknown(self) -> SkyError:
        return Unavailable("OUTCOME_UNKNOWN", "nobody knows")

    def close(self) -> None:
        """The disk stays."""


class _Inbox(SimpleQueue[Any]):
    """Tells when something is put into it."""

    def __init__(self, told: Callable[[], None]) -> None:
        self._told = told

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: ANN401, FBT001, FBT002 -- as the queue has it
        super().put(item)
        self._told()


class _VirtualWriter(Writer):
    """The writer without its thread: each batch is gathered, written and answered at three moments."""

    def __init__(self, backend: _MemoryBackend, loop: VirtualLoop, chance: Random) -> None:
        super().__init__(backend, "memory", max_batch=512, capacity=4096, on_fatal=_never)
        self._virtual, self._chance = loop, chance
        self._queue = _Inbox(self._arrived)
        self._busy = False

    def _arrived(self) -> None:
        if not self._busy:
            self._busy = True
            self._virtual.call_later(self._sync(), self._flush)

    def _sync(self) -> float:
        """How long a disk takes: mostly a millisecond, seldom half a second."""
        return self._chance.expovariate(1000) if self._chance.random() > 0.01 else self._chance.expovariate(2)

    def _flush(self) -> None:
        if not PROCESS.get().alive:
            return
        batch = self._gather()
        if batch:
            self._write(batch)
        self._busy = bool(self._later) or not self._queue.empty()
        if self._busy:
            self._virtual.call_later(self._sync(), self._flush)

    def _settle_in_loop(self, answers: Sequence[Any]) -> None:
        self._virtual.call_later(self._chance.expovariate(4000), self._settle, answers)


def _never(failure: SkyError) -> None:
    raise AssertionError(f"the storage of the simulation does not fail: {failure}")


class VirtualDatabase(Database):
    """The database as one process has it open."""

    def __init__(self, disk: Disk, news: News, loop: VirtualLoop, chance: Random) -> None:
        process = PROCESS.get()
        system = System(
            "memory", shared=False, begin_reading="", explained=lambda _: None, news=lambda: news.listen(process)
        )
        writer = _VirtualWriter(_MemoryBackend(disk, news), loop, chance)
        super().__init__(system, writer, cast("Engine", None), cast("ThreadPoolExecutor", None))
        self._disk, self._chance, self._process = disk, chance, process

    def share(self) -> None:
        """From now on it says that other processes write, too."""
        self.system = replace(self.system, shared=True)

    async def read(self, run: Callable[[Connection], T]) -> T:
        self._require_life()
        await asyncio.sleep(self._chance.expovariate(4000))
        read = run(self._disk.connection)
        await asyncio.sleep(self._chance.expovariate(4000))
        return read

    async def transact(
        self,
        run: Callable[[Connection], T],
        *,
        committed: Callable[[T], None] | None = None,
        topics: Callable[[T], Iterable[str]] | None = None,
    ) -> T:
        self._require_life()
        return await super().transact(run, committed=committed, topics=topics)

    def _require_life(self) -> None:
        if not self._process.alive:
            raise Unavailable("DEAD", "a dead process writes nothing")
