"""An event loop whose time is virtual: nothing waits, the clock jumps to the next timer, and a seed decides everything.

Whatever runs belongs to the process in whose context it was begun. A process can be killed, which is what `kill -9` is:
nothing of it runs again, no `finally`, no `except`. And it can be frozen: what would have run waits for the thaw.
The idea is FoundationDB's (Zhou et al., SIGMOD 2021); the loop needs neither selector nor thread.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[..., object]

MOST = 200_000
"""Callbacks that a schedule may take; usual are some thousand."""

PROCESS: ContextVar[Process] = ContextVar("process")


class Ended(Exception):
    """Virtual time is over and what was waited for has not come."""


class Process:
    """What dies together: a machine's program, from its start to its end."""

    def __init__(self, name: str, loop: VirtualLoop) -> None:
        self.name = name
        self._loop = loop
        self.alive = True
        self.frozen = False
        self.parked: list[asyncio.Handle] = []

    def context(self) -> Context:
        """Begins something in this process."""
        made = self._loop.outside.copy()
        made.run(PROCESS.set, self)
        return made


class VirtualTask(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where in memory it lies: sets of tasks decide who goes first."""

    def __init__(self, work: Coroutine[Any, Any, Any], number: int, loop: VirtualLoop, context: Context | None) -> None:
        self._number = number
        super().__init__(work, loop=loop, name=f"task {number}", context=context)

    def __hash__(self) -> int:
        return self._number


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs what is ready, in order; when nothing is, time jumps to the next timer."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._now = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()
        self._stopping = False
        self._everything = Process("everything else", self)
        self.outside = copy_context()
        """The context of what belongs to no process, to be given to timers of the world."""
        self.buried: list[object] = []
        """What dead processes were in the middle of: it is never collected, since that would let it say goodbye."""
        self.handled = 0
        self.errors: list[str] = []

    def run_until_complete(self, future: Generator[Any, None, T] | Coroutine[Any, Any, T], until: float = 1e9) -> T:  # pyright: ignore[reportIncompatibleMethodOverride] -- of what it could take it takes coroutines
        """Runs until it is done. Raises Ended when virtual time reaches `until` before, or nothing is left to do."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(future)
            while not task.done():
                if not self._step(until) or self.handled > MOST:
                    raise Ended(f"at {self._now:.3f} s, after {self.handled} callbacks")
            return task.result()
        finally:
            asyncio._set_running_loop(None)

    def _step(self, until: float) -> bool:
        if not self._ready:
            while self._timers and self._timers[0][2].cancelled():
                heapq.heappop(self._timers)
            if not self._timers or self._timers[0][0] > until:
                return False
            self._now = max(self._now, self._timers[0][0])
            while self._timers and self._timers[0][0] <= self._now:
                self._ready.append(heapq.heappop(self._timers)[2])
        handle = self._ready.popleft()
        if handle.cancelled():
            return True
        process = handle._context.get(PROCESS, self._everything)  # pyright: ignore -- whose it is
        if process.frozen:
            process.parked.append(handle)
        elif process.alive:
            self.handled += 1
            handle._run()  # pyright: ignore -- what a loop does
        return True

    def kill(self, process: Process) -> None:
        """Nothing of it runs any more."""
        process.alive = process.frozen = False
        process.parked.clear()

    def freeze(self, process: Process) -> None:
        process.frozen = True

    def thaw(self, process: Process) -> None:
        process.frozen = False
        self._ready.extend(process.parked)
        process.parked.clear()

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Work, *args: Any, context: Context | None = None) -> asyncio.Handle:  # noqa: ANN401
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Work,
        *args: Any,  # noqa: ANN401 -- as asyncio has it
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Work,
        *args: Any,  # noqa: ANN401 -- as asyncio has it
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to do: it is passed over when its time has come."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # pyright: ignore[reportIncompatibleMethodOverride] -- as TaskGroup and we call it
        self,
        coro: Any,  # noqa: ANN401 -- the same
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> VirtualTask:
        task = VirtualTask(coro, next(self._order), self, context)
        self.buried.append(task)
        return task

    async def run_in_executor(self, executor: object, func: Callable[..., T], *args: object) -> T:  # pyright: ignore[reportIncompatibleMethodOverride] -- awaited by all that we run
        """What a thread would do, at some moment and in one piece."""
        await asyncio.sleep(self._chance.expovariate(4000))
        return func(*args)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A callback that raises is an error of the simulation; a task whose error nobody takes is told as well."""
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")
