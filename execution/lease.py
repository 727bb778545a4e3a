"""The worker's right to begin effects, on its own monotonic clock.

A lease counts from when the worker SENT the frame that was answered, never from when the answer arrived: so it ends
here no later than the control plane counts it, however long a frame or this process was held up. The stream's lease
covers every attempt but those whose owner could not be asked: each of them keeps the end that it had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass

from execution.attempts import AttemptKey
from infra.clock import Clock


@dataclass(frozen=True, slots=True)
class _Claim:
    sent_at: float
    keys: frozenset[AttemptKey]


class Lease:
    """Ended until it is granted. An end forbids beginning; what runs may finish."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends_at = clock.monotonic()
        self._claims: deque[_Claim] = deque()
        self._kept: dict[AttemptKey, float] = {}

    @property
    def alive(self) -> bool:
        return self._clock.monotonic() < self._ends_at

    def covers(self, key: AttemptKey) -> bool:
        """Whether this attempt may begin."""
        return self.alive and self._clock.monotonic() < self._kept.get(key, self._ends_at)

    def grant(self, sent_at: float, ttl: float) -> None:
        """A new stream's Welcome to the Hello of `sent_at`; heartbeats of an older stream will not be answered."""
        self._claims.clear()
        self._kept.clear()
        self._ends_at = max(self._ends_at, sent_at + ttl)

    def claim(self, keys: Collection[AttemptKey]) -> None:
        """A heartbeat goes out for these attempts."""
        self._claims.append(_Claim(self._clock.monotonic(), frozenset(keys)))

    def renew(
        self, keys: Collection[AttemptKey], ttl: float, unanswered: Collection[AttemptKey] = ()
    ) -> frozenset[AttemptKey]:
        """The answer to the oldest open heartbeat. Returns what was claimed and is not the worker's any more."""
        if not self._claims:
            return frozenset()
        claim = self._claims.popleft()
        self._kept = {key: self._kept.get(key, self._ends_at) for key in claim.keys.intersection(unanswered)}
        self._ends_at = max(self._ends_at, claim.sent_at + ttl)
        return claim.keys.difference(keys, unanswered)
