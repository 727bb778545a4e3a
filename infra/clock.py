"""Time. Nothing else reads a clock, so that tests and simulation own it."""

from __future__ import annotations

import asyncio
import heapq
import time
from itertools import count
from typing import Protocol

SLEW = 0.1
"""How much faster or slower a steady clock goes while it is off."""
BELIEVED_MS = 2 * 3_600_000
"""A wall clock that goes forward by more than this is believed at once."""


class Clock(Protocol):
    """Wall time for records, monotonic time for durations."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary point; never runs backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Resume after that many seconds of monotonic time."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SteadyClock:
    """Another clock whose wall time somebody may set at any moment: here an hour more or less is no jump.

    While the wall clock is off, this one goes a tenth faster or slower until both agree, as adjtime(3) does: an hour
    takes ten, and whatever is timed meanwhile lasts at most a tenth longer or shorter. A clock that goes forward by far
    more is believed at once: the machine slept, or the clock had never been set.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._shown_ms = float(clock.now_ms())
        self._read_at = clock.monotonic()

    def now_ms(self) -> int:
        at = self._clock.monotonic()
        passed_ms, self._read_at = (at - self._read_at) * 1000, at
        self._shown_ms += passed_ms
        off_ms = self._clock.now_ms() - self._shown_ms
        most_ms = max(passed_ms * SLEW, 0.0)
        self._shown_ms += off_ms if off_ms > BELIEVED_MS else max(-most_ms, min(most_ms, off_ms))
        return int(self._shown_ms)

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class ManualClock:
    """Stands still until told; for tests and simulation."""

    def __init__(self, start_ms: int = 1_700_000_000_000) -> None:
        self._start_ms = start_ms
        self._elapsed = 0.0
        self._order = count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        return self._start_ms + round(self._elapsed * 1000)

    def monotonic(self) -> float:
        return self._elapsed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + seconds, next(self._order), woken))
        self._tell_watchers()
        await woken

    @property
    def sleeping(self) -> int:
        """How many tasks wait in sleep()."""
        return sum(not woken.done() for _, _, woken in self._sleepers)

    async def until_sleeping(self, tasks: int = 1) -> None:
        """Wait until at least so many tasks are in sleep(): the way to know that a loop has come round."""
        if self.sleeping < tasks:
            reached = asyncio.get_running_loop().create_future()
            self._watchers.append((tasks, reached))
            await reached

    async def advance(self, seconds: float) -> None:
        """Let time pass: sleepers wake in order, each at its own time, and run before the next one."""
        until = self._elapsed + seconds
        while self._sleepers and self._sleepers[0][0] <= until:
            due, _, woken = heapq.heappop(self._sleepers)
            self._elapsed = due
            if not woken.done():
                woken.set_result(None)
                await asyncio.sleep(0)
        self._elapsed = until
        await asyncio.sleep(0)

    async def leap(self, seconds: float) -> None:
        """Let time pass in one go, as over the sleep of a laptop: whoever is due by then wakes once."""
        self._elapsed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._elapsed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
        await asyncio.sleep(0)

    def jump(self, seconds: float) -> None:
        """Set the wall clock off by so much, as an administrator or NTP would; monotonic time does not notice."""
        self._start_ms += round(seconds * 1000)

    def _tell_watchers(self) -> None:
        sleeping = self.sleeping
        for tasks, reached in self._watchers:
            if tasks <= sleeping and not reached.done():
                reached.set_result(None)
        self._watchers = [watcher for watcher in self._watchers if not watcher[1].done()]


async def wait_for(event: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Waits for an event, but not longer than so many seconds of the clock."""
    if event.is_set():
        return

    async def ring() -> None:
        await clock.sleep(seconds)
        event.set()

    async with asyncio.TaskGroup() as group:
        timer = group.create_task(ring())
        await event.wait()
        timer.cancel()
