"""The time of one run: never before what its journal already says, whoever's clock wrote that.

An owner whose clock is behind the former one's would otherwise wait for moments that the former had set (a retry, the
settle time of an effect) as long as the two clocks differ. It goes on from the last event instead, second by second,
until its own clock has caught up.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.clock import Clock


@dataclass(slots=True)
class RunClock:
    """Implements infra.clock.Clock over another one."""

    clock: Clock
    _floor_ms: int = 0
    _since: float = 0.0

    def not_before(self, time_ms: int) -> None:
        """Time is at least this now: an event says so."""
        if time_ms >= self.now_ms():
            self._floor_ms, self._since = time_ms, self.clock.monotonic()

    def now_ms(self) -> int:
        floor_ms = self._floor_ms + int((self.clock.monotonic() - self._since) * 1000) if self._floor_ms else 0
        return max(self.clock.now_ms(), floor_ms)

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
