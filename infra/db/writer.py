"""The one thread that writes: it gathers what is waiting, commits it together, and answers all of it at once.

A write is never cancelled by whoever waits for it. A write with bad data fails alone; storage that fails ends the
process.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar, cast

from sqlalchemy import Connection

from infra.db.engine import driver_connection
from infra.db.failure import outcome_unknown, storage_failure
from infra.errors import Exhausted, Internal, SkyError, Unavailable

ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class BatchHandler(Protocol[ItemT_contra, ResultT]):
    """Writes many items of one kind on the bare driver connection: the hot path."""

    def apply(self, connection: sqlite3.Connection, items: Sequence[ItemT_contra]) -> Sequence[ResultT | SkyError]:
        """In the writer thread, inside the transaction: one answer an item; an item answered by an error left no trace.

        Raising means that some item has bad data: the batch is rolled back and split until that item stands alone.
        """
        ...

    def committed(self, results: Sequence[ResultT]) -> None:
        """In the event loop, after the commit, whether anybody still waits or not."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    future: asyncio.Future[object]
    run: Callable[[Connection], object]
    committed: Callable[[object], None] | None


@dataclass(slots=True, eq=False)
class _Item:
    future: asyncio.Future[object]
    handler: BatchHandler[object, object]
    item: object
    key: str


_Write = _Call | _Item
_Answer = tuple[_Write, object]


class _Stop:
    """What ends the thread once everything before it is written."""


class Writer:
    """Owns the writing connection from start() to close(); everything else belongs to the event loop that made it."""

    def __init__(
        self, connection: Connection, path: Path, *, max_batch: int, capacity: int, on_fatal: Callable[[SkyError], None]
    ) -> None:
        self._connection = connection
        self._driver = driver_connection(connection)
        self._path = path
        self._max_batch = max_batch
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(capacity)
        self._queue: SimpleQueue[_Write | _Stop] = SimpleQueue()
        self._later: deque[_Write] = deque()
        self._stopping = False
        self._closed = False
        self._failed: SkyError | None = None
        self._thread = threading.Thread(target=self._work, name=f"writer {path.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    async def call(self, run: Callable[[Connection], ResultT], committed: Callable[[ResultT], None] | None) -> ResultT:
        """Run a function on the connection, under a savepoint of its own, in the next batch."""
        future = await self._new_future()
        self._queue.put(_Call(future, run, cast("Callable[[object], None] | None", committed)))
        return cast("ResultT", await future)

    async def item(self, handler: BatchHandler[ItemT, ResultT], item: ItemT, *, key: str) -> ResultT:
        """Hand one item to its handler; a second item of the same key waits for the batch after."""
        future = await self._new_future()
        self._queue.put(_Item(future, cast("BatchHandler[object, object]", handler), item, key))
        return cast("ResultT", await future)

    async def close(self) -> None:
        """Write what is queued, then end the thread. Nothing is accepted afterwards."""
        self._closed = True
        self._queue.put(_Stop())
        await asyncio.to_thread(self._thread.join)

    async def _new_future(self) -> asyncio.Future[object]:
        # Waiting for room is the backpressure; a waiter cancelled here has written nothing.
        await self._room.acquire()
        if self._closed or self._failed is not None:
            self._room.release()
            raise self._failed or Unavailable("DATABASE_CLOSED", f"{self._path} is closed: this process is stopping")
        return self._loop.create_future()

    def _work(self) -> None:
        try:
            while not (self._stopping and not self._later):
                batch = self._gather()
                if batch:
                    self._write(batch)
        except Exception as bug:  # The thread must never die in silence: every waiter would wait for ever.
            self._fail(Internal("WRITER_DIED", f"the writer of {self._path} ended: {bug!r}"), ())
            raise

    def _gather(self) -> list[_Write]:
        batch: list[_Write] = []
        keys: set[str] = set()
        pending, self._later = self._later, deque()
        while len(batch) < self._max_batch:
            write = pending.popleft() if pending else self._next(wait=not batch)
            if write is None:
                break
            if isinstance(write, _Item):
                if write.key in keys:
                    self._later.append(write)
                    continue
                keys.add(write.key)
            batch.append(write)
        self._later.extend(pending)
        return batch

    def _next(self, *, wait: bool) -> _Write | None:
        if self._stopping:
            return None
        try:
            write = self._queue.get(block=wait and not self._later)
        except Empty:
            return None
        if isinstance(write, _Stop):
            self._stopping = True
            return None
        return write

    def _write(self, batch: Sequence[_Write]) -> None:
        try:
            answers = self._transaction(batch)
        except Exception as error:  # noqa: BLE001 (it belongs to whoever waits for the write)
            failure = storage_failure(error, self._path)
            if isinstance(failure, Unavailable | Exhausted):  # Busy or full: rolled back, so the outcome is known.
                answers = [(write, failure) for write in batch]
            elif failure is not None:
                self._fail(failure, batch)
                return
            elif len(batch) == 1:
                answers = [(batch[0], _refused(batch[0], error))]
            else:
                middle = len(batch) // 2
                self._write(batch[:middle])
                self._write(batch[middle:])
                return
        self._settle_in_loop(answers)

    def _transaction(self, batch: Sequence[_Write]) -> list[_Answer]:
        self._driver.execute("BEGIN IMMEDIATE")
        try:
            # Commands before appends: a pause that waits in the same batch is seen by the intents behind it.
            answers: list[_Answer] = [(write, self._run(write)) for write in batch if isinstance(write, _Call)]
            answers.extend(self._apply([write for write in batch if isinstance(write, _Item)]))
            self._driver.execute("COMMIT")
        except BaseException:
            if self._driver.in_transaction:
                self._driver.execute("ROLLBACK")
            raise
        return answers

    def _run(self, call: _Call) -> object:
        self._driver.execute("SAVEPOINT call")
        try:
            result = call.run(self._connection)
        except Exception as error:
            if storage_failure(error, self._path) is not None:
                raise
            self._driver.execute("ROLLBACK TO call")
            result = error
        self._driver.execute("RELEASE call")
        return result

    def _apply(self, items: Sequence[_Item]) -> Iterator[_Answer]:
        for handler, group in groupby(items, key=lambda item: item.handler):
            members = list(group)
            yield from zip(members, handler.apply(self._driver, [member.item for member in members]), strict=True)

    def _settle_in_loop(self, answers: Sequence[_Answer]) -> None:
        with suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            self._loop.call_soon_threadsafe(self._settle, answers)

    def _settle(self, answers: Sequence[_Answer]) -> None:
        for write, answer in answers:
            self._room.release()
            if write.future.done():
                continue
            if isinstance(answer, Exception):
                write.future.set_exception(answer)
            else:
                write.future.set_result(answer)
        self._tell(answers)

    def _tell(self, answers: Sequence[_Answer]) -> None:
        written = [(write, answer) for write, answer in answers if not isinstance(answer, Exception)]
        for write, answer in written:
            if isinstance(write, _Call) and write.committed is not None:
                write.committed(answer)
        items = [(write, answer) for write, answer in written if isinstance(write, _Item)]
        for handler, group in groupby(items, key=lambda pair: pair[0].handler):
            handler.committed([answer for _, answer in group])

    def _fail(self, failure: SkyError, batch: Sequence[_Write]) -> None:
        """Only a test's `on_fatal` returns; then every waiter learns that its outcome is not known."""
        self._on_fatal(failure)
        self._failed = failure
        self._stopping = True
        unknown = outcome_unknown(self._path)
        self._settle_in_loop([(write, unknown) for write in [*batch, *self._drain()]])

    def _drain(self) -> Iterator[_Write]:
        yield from self._later
        self._later.clear()
        while not self._queue.empty():
            write = self._queue.get()
            if not isinstance(write, _Stop):
                yield write


def _refused(write: _Write, error: Exception) -> Exception:
    if isinstance(write, _Call) or isinstance(error, SkyError):
        return error
    refusal = Internal("WRITE_REFUSED", f"the database does not take this write: {error}")
    refusal.__cause__ = error
    return refusal
