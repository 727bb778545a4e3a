"""The clocks of a simulated process: its monotonic time is the loop's, its wall time is whatever it was set to."""

from __future__ import annotations

import asyncio

from tests.simulation.loop import VirtualLoop

START_MS = 1_700_000_000_000


class VirtualClock:
    """Implements infra.clock.Clock."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._off_ms = 0

    def now_ms(self) -> int:
        return START_MS + self._off_ms + int(self._loop.time() * 1000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def jump(self, seconds: float) -> None:
        """As an administrator or NTP sets it."""
        self._off_ms += int(seconds * 1000)
