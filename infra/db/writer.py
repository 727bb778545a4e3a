"""The one thread that writes: it gathers what is waiting, commits it together, and answers all of it at once.

A write is never cancelled by whoever waits for it. A write with bad data fails alone. When a connection is lost in the
middle of a commit, the batch is written again on the next one: every write must know itself. Storage that fails under
this very process ends it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, SimpleQueue
from typing import Protocol, TypeVar, cast

from sqlalchemy import Connection

from infra.db.backend import Backend, Fate
from infra.db.driver import driver_of
from infra.errors import Internal, SkyError, Unavailable
from infra.metrics import NO_METRICS, Metrics, Reading
from infra.metrics import catalogue as known

ItemT_contra = TypeVar("ItemT_contra", contravariant=True)
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


class BatchHandler(Protocol[ItemT_contra, ResultT]):
    """Writes many items of one kind: the hot path."""

    def apply(self, connection: Connection, items: Sequence[ItemT_contra]) -> Sequence[ResultT | SkyError]:
        """In the writer thread, inside the transaction: one answer an item; an item answered by an error left no trace.

        Raising means that some item has bad data: the batch is rolled back and split until that item stands alone.
        """
        ...

    def topics(self, items: Sequence[ItemT_contra]) -> Iterable[str]:
        """What other processes should look at once the items are committed."""
        ...

    def committed(self, results: Sequence[ResultT]) -> None:
        """In the event loop, after the commit, whether anybody still waits or not."""
        ...


@dataclass(slots=True, eq=False)
class _Call:
    future: asyncio.Future[object]
    run: Callable[[Connection], object]
    committed: Callable[[object], None] | None
    topics: Callable[[object], Iterable[str]] | None


@dataclass(slots=True, eq=False)
class _Item:
    future: asyncio.Future[object]
    handler: BatchHandler[object, object]
    item: object
    key: str


@dataclass(slots=True, eq=False)
class _Scrub:
    """Between transactions, not in one."""

    future: asyncio.Future[object]


_Write = _Call | _Item | _Scrub
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
"""Seconds before the same batch is written again, while the database cannot be reached: some nine in all."""
_Answer = tuple[_Write, object]


class _Stop:
    """What ends the thread once everything before it is written."""


class Writer:
    """Owns the writing connection from start() to close(); everything else belongs to the event loop that made it."""

    def __init__(
        self,
        backend: Backend,
        name: str,
        *,
        max_batch: int,
        capacity: int,
        on_fatal: Callable[[SkyError], None],
        metrics: Metrics = NO_METRICS,
    ) -> None:
        self._backend = backend
        self._name = name
        self._max_batch = max_batch
        self._on_fatal = on_fatal
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(capacity)
        self._queue: SimpleQueue[_Write | _Stop] = SimpleQueue()
        self._later: deque[_Write] = deque()
        self._stopping = False
        self._closed = threading.Event()
        self._failed: SkyError | None = None
        self._thread = threading.Thread(target=self._work, name=f"writer {name}", daemon=True)
        self._batches, self._commits = metrics.buckets(known.JOURNAL_BATCH), metrics.buckets(known.JOURNAL_COMMIT)
        self._seconds = metrics.seconds
        metrics.read(self._waiting)

    def start(self) -> None:
        self._thread.start()

    async def call(
        self,
        run: Callable[[Connection], ResultT],
        committed: Callable[[ResultT], None] | None,
        topics: Callable[[ResultT], Iterable[str]] | None,
    ) -> ResultT:
        """Run a function on the connection, under a savepoint of its own, in the next batch."""
        future = await self._new_future()
        told = cast("Callable[[object], None] | None", committed)
        self._queue.put(_Call(future, run, told, cast("Callable[[object], Iterable[str]] | None", topics)))
        return cast("ResultT", await future)

    async def item(self, handler: BatchHandler[ItemT, ResultT], item: ItemT, *, key: str) -> ResultT:
        """Hand one item to its handler; a second item of the same key waits for the batch after."""
        future = await self._new_future()
        self._queue.put(_Item(future, cast("BatchHandler[object, object]", handler), item, key))
        return cast("ResultT", await future)

    async def scrub(self) -> bool:
        """Overwrite what was deleted, between two batches; whether all of it is gone."""
        future = await self._new_future()
        self._queue.put(_Scrub(future))
        return cast("bool", await future)

    async def close(self) -> None:
        """Write what is queued, then end the thread. Nothing is accepted afterwards."""
        self._closed.set()
        self._queue.put(_Stop())
        await asyncio.to_thread(self._thread.join)

    async def _waiting(self) -> Sequence[Reading]:
        return (Reading(known.JOURNAL_QUEUE, self._queue.qsize() + len(self._later)),)

    async def _new_future(self) -> asyncio.Future[object]:
        # Waiting for room is the backpressure; a waiter cancelled here has written nothing.
        await self._room.acquire()
        if self._closed.is_set() or self._failed is not None:
            self._room.release()
            raise self._failed or Unavailable("DATABASE_CLOSED", f"{self._name} is closed: this process is stopping")
        return self._loop.create_future()

    def _work(self) -> None:
        try:
            while not (self._stopping and not self._later):
                batch = self._gather()
                if batch:
                    self._write(batch)
        except Exception as bug:  # The thread must never die in silence: every waiter would wait for ever.
            self._fail(Internal("WRITER_DIED", f"the writer of {self._name} ended: {bug!r}"), ())
            raise

    def _gather(self) -> list[_Write]:
        batch: list[_Write] = []
        keys: set[str] = set()
        pending, self._later = self._later, deque()
        while len(batch) < self._max_batch:
            write = pending.popleft() if pending else self._next(wait=not batch)
            if write is None:
                break
            if isinstance(write, _Scrub):
                if batch:
                    self._later.append(write)
                else:
                    batch.append(write)
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
        error = self._tried(batch)
        for pause in _PAUSES:
            if error is None or self._backend.fate(error) is not Fate.AGAIN or self._closed.wait(pause):
                break
            error = self._tried(batch)
        if error is not None:
            self._give_up(batch, error)

    def _tried(self, batch: Sequence[_Write]) -> Exception | None:
        begun = self._seconds()
        try:
            answers = self._transaction(batch)
            self._commits.observe(self._seconds() - begun)
            self._batches.observe(len(batch))
        except Exception as error:  # noqa: BLE001 (it belongs to whoever waits for the write)
            return error
        self._settle_in_loop(answers)
        return None

    def _give_up(self, batch: Sequence[_Write], error: Exception) -> None:
        fate = self._backend.fate(error)
        if fate is Fate.FATAL:
            self._fail(self._backend.explained(error), batch)
        elif fate is not Fate.DATA:
            failure = self._backend.explained(error)
            self._settle_in_loop([(write, failure) for write in batch])
        elif len(batch) == 1:
            self._settle_in_loop([(batch[0], _refused(batch[0], error))])
        else:
            middle = len(batch) // 2
            self._write(batch[:middle])
            self._write(batch[middle:])

    def _transaction(self, batch: Sequence[_Write]) -> list[_Answer]:
        if isinstance(batch[0], _Scrub):
            return [(batch[0], self._backend.scrub())]
        self._backend.begin()
        try:
            # Commands before appends: a pause that waits in the same batch is seen by the intents behind it.
            answers: list[_Answer] = [(write, self._run(write)) for write in batch if isinstance(write, _Call)]
            answers.extend(self._apply([write for write in batch if isinstance(write, _Item)]))
            self._backend.announce(frozenset(_topics(answers)))
            self._backend.commit()
        except BaseException:
            self._backend.rollback()
            raise
        return answers

    def _run(self, call: _Call) -> object:
        connection = self._backend.connection
        driver = driver_of(connection)
        driver.execute("SAVEPOINT call", ())
        try:
            result = call.run(connection)
        except Exception as error:
            if self._backend.fate(error) is not Fate.DATA:
                raise
            driver.execute("ROLLBACK TO SAVEPOINT call", ())
            result = error
        driver.execute("RELEASE SAVEPOINT call", ())
        return result

    def _apply(self, items: Sequence[_Item]) -> Iterator[_Answer]:
        connection = self._backend.connection
        for handler, group in groupby(items, key=lambda item: item.handler):
            members = list(group)
            yield from zip(members, handler.apply(connection, [member.item for member in members]), strict=True)

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
        unknown = self._backend.outcome_unknown()
        self._settle_in_loop([(write, unknown) for write in [*batch, *self._drain()]])

    def _drain(self) -> Iterator[_Write]:
        yield from self._later
        self._later.clear()
        while not self._queue.empty():
            write = self._queue.get()
            if not isinstance(write, _Stop):
                yield write


def _topics(answers: Iterable[_Answer]) -> Iterator[str]:
    for write, answer in answers:
        if isinstance(answer, Exception):
            continue
        if isinstance(write, _Item):
            yield from write.handler.topics([write.item])
        elif isinstance(write, _Call) and write.topics is not None:
            yield from write.topics(answer)


def _refused(write: _Write, error: Exception) -> Exception:
    if isinstance(write, _Call | _Scrub) or isinstance(error, SkyError):
        return error
    refusal = Internal("WRITE_REFUSED", f"the database does not take this write: {error}")
    refusal.__cause__ = error
    return refusal
