"""When schedules are due: cron, once, at an interval; and which due times passed while nobody looked. Pure.

All moments are milliseconds since the Unix epoch.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice, takewhile

from control.core.cron import Cron
from infra.digest import digest_hex, digest_of

_HOUR = 3_600_000
_LOOK_BACK = (_HOUR, 24 * _HOUR, 31 * 24 * _HOUR, 400 * 24 * _HOUR, 4_000 * 24 * _HOUR)
"""How far before the end the latest due times of a long range are looked for, until enough are found."""


@dataclass(frozen=True, slots=True)
class Once:
    """One moment."""

    at_ms: int

    def after(self, after_ms: int) -> Iterator[int]:
        """The moment, if it is still to come."""
        if self.at_ms > after_ms:
            yield self.at_ms


@dataclass(frozen=True, slots=True)
class Every:
    """Again and again, so many milliseconds apart, counted from an anchor."""

    interval_ms: int
    anchor_ms: int

    def after(self, after_ms: int) -> Iterator[int]:
        """The moments after one, in order."""
        passed = (after_ms - self.anchor_ms) // self.interval_ms
        yield from (self.anchor_ms + number * self.interval_ms for number in count(passed + 1))


@dataclass(frozen=True, slots=True)
class Never:
    """No time at all: something else makes it due."""

    def after(self, after_ms: int) -> Iterator[int]:
        """Nothing."""
        return iter(())


When = Cron | Once | Every | Never


@dataclass(frozen=True, slots=True)
class Passed:
    """The latest due times of a range; `earlier` is the first one before those, when there are more."""

    latest: tuple[int, ...]
    earlier: int | None = None


def due_after(when: When, after_ms: int) -> int | None:
    """The first due time after a moment."""
    return next(when.after(after_ms), None)


def due_within(when: When, after_ms: int, until_ms: int, most: int) -> tuple[int, ...]:
    """The first due times after one moment and up to another."""
    return tuple(islice(takewhile(lambda due: due <= until_ms, when.after(after_ms)), most))


def passed(when: When, first_ms: int, until_ms: int, most: int) -> Passed:
    """The latest due times from `first_ms`, which is one, up to a moment. However long it is, it takes no long time."""
    latest: deque[int] = deque(maxlen=most)
    start = first_ms - 1
    for back in _LOOK_BACK:
        start = max(first_ms - 1, until_ms - back)
        latest = deque(takewhile(lambda due: due <= until_ms, when.after(start)), maxlen=most)
        if len(latest) == most or start == first_ms - 1:
            break
    if not latest or latest[0] == first_ms:
        return Passed(tuple(latest) or (first_ms,))
    return Passed(tuple(latest), first_ms)


def delay_of(schedule_id: str, due_ms: int, jitter_ms: int) -> int:
    """The jitter of one due time: from 0 up to `jitter_ms`, always the same for the same due time."""
    drawn = int(digest_hex(digest_of(f"{schedule_id} {due_ms}".encode()))[:13], 16)
    return drawn % (jitter_ms + 1)
