"""Looks after schedules: sleeps until the next due time or a change, decides a turn for each that is concerned.

Several processes may do so on one database. A turn counts only if nobody had one in between; what it decides to start
is started under an id that follows from schedule and due time; so whoever dies at whatever moment, others go on.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field

from control.core.turn import State, turn
from control.journal import Journal
from control.scheduler.firings import FiringStore, Seen
from control.scheduler.missions import Missions
from control.scheduler.starting import Starter
from infra.clock import Clock, wait_for
from infra.errors import Conflict, DeadlineExceeded, Exhausted, SkyError, Unavailable
from infra.log import event_logger

LONGEST_SLEEP = 10.0
"""Seconds. A clock that is set, a laptop that slept and a wake that was lost cost no more than this."""
_PASSING = (Exhausted, Unavailable, DeadlineExceeded, Conflict)
_AGAIN = 1.0
BROKEN_SECONDS = 30.0
"""So long a schedule is left alone whose turn met an error of our own."""

log = event_logger(__name__)


@dataclass(slots=True)
class Scheduler:
    """The schedules of every tenant, as one process looks after them."""

    store: FiringStore
    starter: Starter
    missions: Missions
    journal: Journal
    clock: Clock
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _ids: set[str] = field(default_factory=set[str])
    """Schedules that changed, and runs that began or ended. The empty one stands for all."""
    _broken: dict[str, float] = field(default_factory=dict[str, float])
    _cancelled: set[str] = field(default_factory=set[str])
    """Runs that were cancelled since the last look at everything: each cancellation is told to everybody, us too."""
    _looked: float | None = None

    def look(self, schedule_id: str) -> None:
        """A schedule changed."""
        self._ids.add(schedule_id)
        self._woken.set()

    def wake(self) -> None:
        """There is something to start."""
        self._woken.set()

    async def run(self) -> None:
        """Looks after schedules until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._woken.clear()
                try:
                    until = await self._round()
                except _PASSING as away:  # a database or peer that is away for now ends nothing
                    log.warning("schedules.not_looked_after", error=away)
                    until = self.clock.monotonic() + _AGAIN
                await wait_for(self._woken, self.clock, until - self.clock.monotonic())

    async def _listen(self) -> None:
        async with aclosing(self.journal.wakes()) as wakes:
            async for run_id in wakes:
                self.look(run_id)

    async def _round(self) -> float:
        """Takes every turn that is due and starts what was decided; the monotonic moment at which to look again."""
        for schedule_id in sorted(await self._concerned()):
            if self._broken.get(schedule_id, 0.0) <= self.clock.monotonic():
                await self._try(schedule_id)
        again = await self.starter.start_all()
        wake_ms = await self.store.next_wake()
        rest = LONGEST_SLEEP if wake_ms is None else (wake_ms - self.clock.now_ms()) / 1000
        rest = min(rest, LONGEST_SLEEP if again is None else again)
        # What is due and was left alone is no reason to look all the time.
        return self.clock.monotonic() + min(max(rest, _AGAIN if self._broken else 0.0), LONGEST_SLEEP)

    async def _concerned(self) -> frozenset[str]:
        now = self.clock.monotonic()
        every = self._looked is None or now - self._looked >= LONGEST_SLEEP or "" in self._ids
        ids, self._ids = self._ids, set()
        found = await self.store.due(self.clock.now_ms())
        if every:
            self._looked = now
            self._cancelled.clear()
            return found | await self.store.unsettled()
        return found | await self.store.concerned(ids) if ids else found

    async def _try(self, schedule_id: str) -> None:
        try:
            await self._turn(schedule_id)
            self._broken.pop(schedule_id, None)
        except _PASSING:
            raise
        except Exception as error:  # noqa: BLE001 -- one schedule that breaks must not end the others
            self._broken[schedule_id] = self.clock.monotonic() + BROKEN_SECONDS
            log.error("schedule.broken", schedule_id=schedule_id, error=error)  # noqa: TRY400 -- it adds the traceback

    async def _turn(self, schedule_id: str) -> None:
        seen = await self.store.seen(schedule_id)
        if seen is None:
            return
        decided = turn(seen.standing, self.clock.now_ms())
        stands = (decided.next_ms, decided.wake_ms) == (seen.row.next_ms, seen.row.wake_ms)
        if decided.firings or decided.seen or not stands:
            if not await self.store.take(seen, decided):
                self.look(schedule_id)  # somebody else had a turn: decide again
                return
            left_out = [firing for firing in decided.firings if firing.state is State.SKIPPED]
            self.starter.skipped(schedule_id, [(firing.due_ms, firing.reason) for firing in left_out])
        for run_id in decided.cancel:
            if run_id not in self._cancelled:
                await self._cancel(seen, run_id)

    async def _cancel(self, seen: Seen, run_id: str) -> None:
        reason = f"schedule {seen.row.schedule_id} is due again and wants the run before cancelled"
        try:
            await self.missions.cancel(run_id, tenant=seen.row.tenant, reason=reason)
            self._cancelled.add(run_id)
        except SkyError as error:  # it is tried again at the next look
            log.warning("schedule.not_cancelled", schedule_id=seen.row.schedule_id, run_id=run_id, error=error)
