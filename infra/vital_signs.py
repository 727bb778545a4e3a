"""What every process measures of itself: its calls, its disk, its health."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from infra.health import Finding, Health, State
from infra.metrics import Metrics, Reading
from infra.metrics import catalogue as known
from infra.metrics.series import Buckets, Count, Source

LEAST_BYTES = 2 * 1024**3
"""Room below which somebody should free some: journal and evidence grow with every run."""
OK = "OK"
_SCORE = {State.WELL: 1.0, State.DEGRADED: 0.5, State.FAILING: 0.0}


class RpcMetrics:
    """Counts unary calls by method and code; for the interceptor."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._counts: dict[tuple[str, str], Count] = {}
        self._durations: dict[str, Buckets] = {}

    def begun(self) -> float:
        """To be given back when the call has ended."""
        return self._metrics.seconds()

    def ended(self, path: str, code: str, begun: float) -> None:
        """A call to a declared method has ended with that canonical code."""
        count = self._counts.get((path, code))
        if count is None:
            count = self._counts[path, code] = self._metrics.count(known.RPCS, path[1:], code)
        durations = self._durations.get(path)
        if durations is None:
            durations = self._durations[path] = self._metrics.buckets(known.RPC_DURATION, path[1:])
        count.add()
        durations.observe(self._metrics.seconds() - begun)


def said_of_itself(node_id: str) -> Source:
    """What runs."""

    async def read() -> Iterable[Reading]:
        return (Reading(known.BUILD_INFO, 1.0, (version("skyagentos"), node_id)),)

    return read


def measured_disk(folder: Path) -> Source:
    """Room for data."""

    async def read() -> Iterable[Reading]:
        usage = await asyncio.to_thread(shutil.disk_usage, _existing(folder))
        return (Reading(known.DISK_FREE, usage.free), Reading(known.DISK_SIZE, usage.total))

    return read


def measured_health(health: Health) -> Source:
    """Each fact as a number."""

    async def read() -> Iterable[Reading]:
        return [Reading(known.HEALTH, _SCORE[fact.state], (fact.name,)) for fact in health.facts()]

    return read


async def look_at_disk(folder: Path) -> Finding:
    """Whether there is room. That nothing can be written any more is told by what writes."""
    free = (await asyncio.to_thread(shutil.disk_usage, _existing(folder))).free
    detail = f"{free / 1024**3:.1f} GiB free for {folder}"
    if free >= LEAST_BYTES:
        return Finding(State.WELL, detail)
    return Finding(State.DEGRADED, f"{detail}: free some space, journal and evidence grow with every run")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
