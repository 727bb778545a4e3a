"""Group commit for the worker's journal: one thread writes, and what waits together is flushed together.

Work is done in the order of `submit`, whoever waits for it, and is never cancelled by its waiter. When storage fails,
everything submitted fails and `broken` tells: only a fresh process can read what is really on the disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from execution.journal import DriverError, Journal, journal_failure
from infra.errors import Internal, SkyError

MAX_BATCH = 256

T = TypeVar("T")


class _Work(Protocol):
    def run(self, journal: Journal) -> None:
        """In the thread, inside the transaction."""
        ...

    def settle(self, failure: Exception | None) -> None:
        """In the event loop, after the commit or the failure of it."""
        ...


class _Job(Generic[T]):
    """One piece of work and its waiter."""

    def __init__(self, work: Callable[[Journal], T], waiter: asyncio.Future[T]) -> None:
        self._work = work
        self._waiter = waiter
        self._failure: Exception | None = None
        self._answer: T

    def run(self, journal: Journal) -> None:
        try:
            with journal.savepoint():
                self._answer = self._work(journal)
        except DriverError:
            raise
        except Exception as failure:  # noqa: BLE001  # it belongs to the waiter; the rest of the batch is sound
            self._failure = failure

    def settle(self, failure: Exception | None) -> None:
        failure = failure or self._failure
        if self._waiter.done():
            return
        if failure is not None:
            self._waiter.set_exception(failure)
        else:
            self._waiter.set_result(self._answer)


class Committer:
    """Runs work on the journal in its own thread. What `submit` returns is done once the work is on disk."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[_Work | None] = SimpleQueue()
        self._broken: asyncio.Future[None] = self._loop.create_future()

    def submit(self, work: Callable[[Journal], T]) -> asyncio.Future[T]:
        """Work that must neither block nor keep the journal; what it raises undoes only itself and is raised here."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(work, waiter))
        return waiter

    async def broken(self) -> None:
        """Never returns; raises what broke the storage."""
        await asyncio.shield(self._broken)

    def serve(self) -> None:
        """The thread's life."""
        failure: SkyError | None = None
        while batch := self._next():
            failure = failure or self._commit(batch)
            self._loop.call_soon_threadsafe(self._settle, batch, failure)

    def stop(self) -> None:
        """Ends the thread after all that was submitted."""
        self._jobs.put(None)

    def _commit(self, batch: list[_Work]) -> SkyError | None:
        try:
            with self._journal.transaction():
                for work in batch:
                    work.run(self._journal)
        except DriverError as failure:
            return journal_failure(failure, self._journal.path)
        except Exception as failure:  # noqa: BLE001  # whatever it is, the thread must not just vanish
            return Internal("JOURNAL_FAILED", f"the worker's journal failed: {failure!r}")
        return None

    def _settle(self, batch: list[_Work], failure: SkyError | None) -> None:
        for work in batch:
            work.settle(failure)
        if failure is not None and not self._broken.done():
            self._broken.set_exception(failure)

    def _next(self) -> list[_Work]:
        """Blocks for the next batch; empty means the end."""
        batch: list[_Work] = []
        work = self._jobs.get()
        while work is not None:
            batch.append(work)
            if len(batch) == MAX_BATCH:
                return batch
            try:
                work = self._jobs.get_nowait()
            except Empty:
                return batch
        if batch:
            self.stop()  # after this batch
        return batch


@contextmanager
def committing(journal: Journal) -> Generator[Committer]:
    """A running committer; when the block ends, everything submitted is on disk or has failed."""
    committer = Committer(journal)
    thread = threading.Thread(target=committer.serve, name="worker-journal", daemon=True)
    thread.start()
    try:
        yield committer
    finally:
        committer.stop()
        thread.join()
