"""How long to wait before dialling again."""

from __future__ import annotations

from infra.clock import Clock
from infra.ids import Ids


class Backoff:
    """Doubling from 50 ms to 2 s, jittered."""

    FIRST = 0.05
    LONGEST = 2.0

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._failures = 0

    async def wait(self) -> None:
        """Returns when it is time to dial."""
        longest = min(self.LONGEST, self.FIRST * 2**self._failures)
        self._failures = min(self._failures + 1, 16)
        await self._clock.sleep(longest * (0.5 + self._ids.fraction() / 2))

    def forget(self) -> None:
        """A stream held: the next failure is the first."""
        self._failures = 0
