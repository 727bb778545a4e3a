"""Carries out what was decided: starts the runs of firings, once each, however often it is tried and by whomever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from control.scheduler.firings import FiringStore, ToStart
from control.scheduler.missions import Missions
from infra.clock import Clock
from infra.errors import Cancelled, Conflict, DeadlineExceeded, Exhausted, Internal, SkyError, Unavailable
from infra.log import event_logger
from infra.metrics import NO_METRICS, Metrics
from infra.metrics import catalogue as known

LEFT_SECONDS = 3.0
"""A start that stands still so long, by the clock of the one that looks, is carried on by other processes, too."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 30.0
_AT_ONCE = 8
_PASSING = (Unavailable, Exhausted, DeadlineExceeded, Conflict, Cancelled, Internal)
"""Whether it happened is not known, or it may happen later: the same is asked again."""

log = event_logger(__name__)


@dataclass(slots=True)
class _Pause:
    until: float
    seconds: float


@dataclass(slots=True)
class Starter:
    """Starts runs. What another process decided is left to it for a moment, unless this one has only just begun."""

    store: FiringStore
    missions: Missions
    clock: Clock
    incarnation: str
    metrics: Metrics = NO_METRICS
    _first_seen: dict[tuple[str, int, str], float] = field(default_factory=dict[tuple[str, int, str], float])
    _pauses: dict[tuple[str, int, str], _Pause] = field(default_factory=dict[tuple[str, int, str], _Pause])
    _fresh: bool = True

    async def start_all(self) -> float | None:
        """Starts what may be started now; in how many seconds to look again, if anything is left."""
        found = await self.store.to_start()
        now = self.clock.monotonic()
        keys = {start.key for start in found}
        self._first_seen = {key: self._first_seen.get(key, now) for key in keys}
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in keys}
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for start in found:
                if self._begins(start) <= now:
                    group.create_task(self._try(start, room))
        self._fresh = False
        left = [self._begins(start) for start in await self.store.to_start()] if found else []
        return max(0.0, min(left) - self.clock.monotonic()) if left else None

    def _begins(self, start: ToStart) -> float:
        """The monotonic moment from which on this process tries a start."""
        seen = self._first_seen.get(start.key, self.clock.monotonic())
        mine = self._fresh or start.decided_by == self.incarnation
        pause = self._pauses.get(start.key)
        return max(seen if mine else seen + LEFT_SECONDS, pause.until if pause else 0.0)

    async def start(self, start: ToStart) -> str:
        """Starts the run of a firing, or finds the one that it has. Raises SkyError; what only passes, comes to pass
        by itself later.
        """
        schedule_id, due = start.schedule_id, _readable(start.firing.due_ms)
        try:
            run_id = await self.missions.start(start)
        except _PASSING:
            raise
        except SkyError as error:
            reason = f"{error.message} [{error.reason}]"
            if await self.store.refused(start, reason, self.clock.now_ms()):
                log.warning("schedule.refused", schedule_id=schedule_id, due=due, error=error)
                self._count("refused")
            raise
        if await self.store.started(start, run_id, self.clock.now_ms()):
            log.info("schedule.started", schedule_id=schedule_id, due=due, run_id=run_id)
            self._count("started")
        return run_id

    def skipped(self, schedule_id: str, reasons: Iterable[tuple[int, str]]) -> None:
        """Says what was left out, and why."""
        for due_ms, reason in reasons:
            log.info("schedule.skipped", schedule_id=schedule_id, due=_readable(due_ms), reason=reason)
            self._count("skipped")

    def _count(self, outcome: str) -> None:
        self.metrics.count(known.SCHEDULE_FIRINGS, outcome).add()

    async def _try(self, start: ToStart, room: asyncio.Semaphore) -> None:
        async with room:
            try:
                await self.start(start)
            except _PASSING as error:
                await self._pause(start, error)
            except SkyError:
                return  # it is recorded

    async def _pause(self, start: ToStart, error: SkyError) -> None:
        before = self._pauses.get(start.key)
        seconds = min(before.seconds * 2, LONGEST_PAUSE) if before else FIRST_PAUSE
        self._pauses[start.key] = _Pause(self.clock.monotonic() + seconds, seconds)
        log.warning("schedule.not_started_yet", schedule_id=start.schedule_id, again_in=seconds, error=error)
        if before is None:
            await self.store.hindered(start, f"tried again by itself: {error.message} [{error.reason}]")


def _readable(due_ms: int) -> str:
    return datetime.fromtimestamp(due_ms / 1000, UTC).isoformat()
