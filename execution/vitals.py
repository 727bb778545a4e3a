"""How much of the machine a worker uses, for its heartbeat. Linux: read from /proc and getrusage(2)."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from pathlib import Path

from infra.clock import Clock


class Vitals:
    """Shares are since the last sample."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = (clock.monotonic(), _processor_seconds())

    def processor_share(self) -> float:
        """Of one core, 1 is all of it; of this process only."""
        now, used = self._clock.monotonic(), _processor_seconds()
        elapsed, spent = now - self._last[0], used - self._last[1]
        self._last = (now, used)
        return spent / elapsed if elapsed > 0 else 0.0

    def memory_bytes(self, children: Iterable[int]) -> int:
        """Resident memory of this process and of those that it owns."""
        return sum(map(_resident_bytes, (os.getpid(), *children)))


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _resident_bytes(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0  # it has ended
    return pages * os.sysconf("SC_PAGE_SIZE")
