"""Owns runs: claims those that have no living owner, drives each in a task of its own, and hands them over at drain."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from control.core.run import FOLD_VERSION, INTERNAL_ERROR, LOG_BEHIND, RunFold, terminal
from control.journal import FoldTooNew, Journal, Node, Pulse, RunHead, StaleOwner
from control.orchestrator.driver import Driver
from control.orchestrator.links import Key, WorkerLink, fence_of
from control.orchestrator.living import Living
from control.orchestrator.measures import Measures
from control.orchestrator.queueing import Queueing
from control.orchestrator.results import Report
from infra.clock import Clock, wait_for
from infra.errors import Exhausted, NotFound, SkyError, Unavailable, cause_of
from infra.ids import Ids
from infra.log import event_logger
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev

CLAIM_AT_ONCE = 256
POLL_SECONDS = 2.0
FIRST_REST = 1.0
"""Seconds before a run whose driver broke is tried again; twice as long each time, up to LONGEST_REST."""
LONGEST_REST = 60.0

_PASSING = (Exhausted, Unavailable)
"""Nothing was written, and the same may be written later."""

log = event_logger(__name__)

Renewing = Callable[[Sequence[wire.StepKey], Sequence[wire.StepKey]], None]
"""Sends the answer to a heartbeat: attempts that are renewed, and those whose owner could not be asked."""


_ENDED = (wire.HELD_STATE_DONE, wire.HELD_STATE_LOST, wire.HELD_STATE_TOMBSTONE)


class Leases(NamedTuple):
    """What this node knows of attempts; of those of runs that it does not own it says nothing."""

    held: list[wire.StepKey]
    over: list[wire.StepKey]


class _Left(Enum):
    """How a run was when its driver returned."""

    DONE = "done"
    BROKEN = "broken"
    NO_ROOM = "no room"


@dataclass(slots=True)
class Owner:
    """The runs of this node. It is what the workers' streams talk to."""

    journal: Journal
    node: Node
    clock: Clock
    ids: Ids
    new_driver: Callable[[RunHead], Driver]
    living: Living
    beat_seconds: float
    measures: Measures = field(default_factory=Measures)
    address: str = ""
    """Where other nodes and workers reach this one."""
    queueing: Queueing | None = None
    """Which runs may begin; None: all."""
    seen: Callable[[Mapping[Node, Pulse]], None] | None = None
    """Told which nodes live, where there may be several."""
    drivers: dict[str, Driver] = field(default_factory=dict[str, Driver])
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _resting: dict[str, asyncio.Event] = field(default_factory=dict[str, asyncio.Event])
    _unclaimed: defaultdict[str, dict[Key, Report]] = field(
        default_factory=lambda: defaultdict[str, dict[Key, Report]](dict)
    )
    _mine: dict[str, RunHead] = field(default_factory=dict[str, RunHead])
    """Runs that a task of this node is busy with, as they were claimed last."""
    _dead: frozenset[Node] = frozenset()
    _turned: float = math.inf
    _late: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Claims and drives until cancelled; then hands every run over at once."""
        self._turned = self.clock.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen())
                if self.journal.shared:
                    beats = asyncio.Event()
                    group.create_task(self._beat(beats))
                    await beats.wait()
                while True:
                    self._woken.clear()
                    await self._claim_if_possible(group)
                    self._turned = self.clock.monotonic()
                    await wait_for(self._woken, self.clock, POLL_SECONDS)
        finally:
            if self.journal.shared:
                await self.journal.leave(self.node)

    def idle_seconds(self) -> float:
        """How long ago it last looked for runs to own, or began."""
        return self.clock.monotonic() - self._turned

    async def _beat(self, begun: asyncio.Event) -> None:
        """Says that this node lives, and looks who else does, also after the database was away for a while."""
        last = 0
        while True:
            try:
                last = await self.journal.beat(self.node, last=last, address=self.address)
                pulses = await self.journal.beats()
                before, self._dead = self._dead, self.living.dead({node: one.beat for node, one in pulses.items()})
                if self.seen is not None:
                    self.seen({node: one for node, one in pulses.items() if node not in self._dead})
                if self._dead - before:
                    log.info("node.dead", nodes=sorted(node.node_id for node in self._dead - before))
                    self._woken.set()
                begun.set()
            except _PASSING as away:
                log.warning("journal.away", error=away)
            await self.clock.sleep(self.beat_seconds)

    async def _listen(self) -> None:
        async for run_id in self.journal.wakes():
            driver, rest = self.drivers.get(run_id), self._resting.get(run_id)
            if driver is not None:
                driver.command()
            elif rest is not None:
                rest.set()
            else:
                self._woken.set()

    async def _claim_if_possible(self, group: asyncio.TaskGroup) -> None:
        """A disk that is full or busy for now ends nothing: it can still be read, and there will be room again."""
        try:
            await self._claim(group)
        except _PASSING as error:
            log.warning("runs.not_claimed", error=error)

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        admission = self.queueing and self.queueing.admission
        while heads := await self.journal.claim(
            self.node, fold_version=FOLD_VERSION, limit=CLAIM_AT_ONCE, dead=self._dead, admission=admission
        ):
            for head in heads:
                before, self._mine[head.run_id] = self._mine.get(head.run_id), head
                if before is None:
                    group.create_task(self._own(head))
        if self.queueing is not None:
            await self.queueing.say_why()

    async def _own(self, head: RunHead) -> None:
        """Drives a run until this node is done with it, again when it was lost and claimed anew meanwhile."""
        try:
            while True:
                log.info("run.claimed", run_id=head.run_id, epoch=head.epoch)
                await self._drive_on(head)
                if self._mine[head.run_id].epoch == head.epoch:
                    return
                head = self._mine[head.run_id]
        finally:
            del self._mine[head.run_id]
            if self.queueing is not None:  # another may begin in its place
                self._woken.set()
            if self.journal.shared:  # the next owner asks their workers for them
                self._unclaimed.pop(head.run_id, None)

    async def _drive_on(self, head: RunHead) -> None:
        """Drives a run to its end. One that breaks is tried again, later and later, or when a person commands it."""
        rest = FIRST_REST
        while (left := await self._drive(head)) is not _Left.DONE:
            woken = self._resting[head.run_id] = asyncio.Event()
            await wait_for(woken, self.clock, rest)
            del self._resting[head.run_id]
            rest = FIRST_REST if left is _Left.NO_ROOM else min(rest * 2, LONGEST_REST)

    async def _drive(self, head: RunHead) -> _Left:
        """DONE: the run has ended, or another node took it."""
        driver = self.new_driver(head)
        self.drivers[head.run_id] = driver
        for report in self._unclaimed.pop(head.run_id, {}).values():
            driver.results.put(report)
        try:
            await driver.drive()
        except asyncio.CancelledError:
            await self._release(head)
            raise
        except Exception as raised:  # noqa: BLE001 -- one run that breaks must not end the others
            return await self._broken(driver, cause_of(raised))
        finally:
            del self.drivers[head.run_id]
            self._keep(head.run_id, driver.results.reports)
        return _Left.DONE

    async def _release(self, head: RunHead) -> None:
        try:
            await self.journal.release(head.run_id, head.epoch)
        except _PASSING as error:  # the next owner finds out that this one is gone
            log.warning("run.not_released", run_id=head.run_id, error=error)

    async def _broken(self, driver: Driver, error: BaseException) -> _Left:
        """Says in the journal that a run broke, as far as it can be said."""
        if isinstance(error, StaleOwner):
            log.info("run.lost", run_id=driver.run_id, epoch=driver.ledger.head.epoch)
            return _Left.DONE
        error_id = self.ids.ulid()
        self.measures.broken()
        log.error("run.broken", run_id=driver.run_id, error_id=error_id, error=error)
        detail = f"{type(error).__name__}: {error} (error {error_id} in the log); it is tried again by itself"
        blocked = ev.EventBody(run_blocked=ev.RunBlocked(reason=INTERNAL_ERROR, detail=detail))
        try:
            await driver.ledger.load()
            await driver.ledger.commit_now(lambda folded: () if _said(folded) else (blocked,))
        except SkyError as unsaid:  # the journal itself may be what is broken
            log.error("run.broken_unsaid", run_id=driver.run_id, error_id=error_id, error=unsaid)  # noqa: TRY400 -- it adds the traceback
        return _Left.NO_ROOM if isinstance(error, _PASSING) else _Left.BROKEN

    def _keep(self, run_id: str, reports: Iterable[Report]) -> None:
        for report in reports:
            self._unclaimed[run_id][Key.of(report.result.key)] = report

    async def result(self, link: WorkerLink, result: wire.StepResult) -> None:
        """Passes a result to the run that it is for; one that comes while nobody drives its run waits for that.

        Where another node may be the next to drive it nothing is kept: that one asks the worker, which keeps it.
        """
        run_id, report = result.key.run_id, Report(link, result)
        over = run_id not in self.drivers and await self.ended({run_id})
        driver = self.drivers.get(run_id)
        if driver is not None:
            driver.results.put(report)
        elif over:
            await self._record_late(report)
        else:
            if run_id in self._mine or not self.journal.shared:
                self._keep(run_id, (report,))
            log.info("result.waits", run_id=run_id, step_id=result.key.step_id)

    async def _record_late(self, report: Report) -> None:
        """Records what came after a run's end; it changes no verdict."""
        if await self.journal.erasure(report.result.key.run_id) is not None:
            report.link.recorded(report.result.key)  # what it says must not come back
            return
        async with self._late:
            late = self.new_driver(await self.journal.head(report.result.key.run_id))
            try:
                await late.ledger.load()
            except FoldTooNew as newer:  # its worker holds it until a node records it that knows the run
                log.warning("result.not_recorded", run_id=late.run_id, error=newer)
                return
            await late.results.record(report)

    async def state(self, link: WorkerLink, state: wire.StepState) -> None:
        """Takes what a worker's journal knows of an attempt.

        An outcome in it is not recorded: its evidence is stored only before the result comes, as it does by itself.
        """
        key = Key.of(state.key)
        driver = self.drivers.get(key.run_id)
        if driver is not None and fence_of(state.key) < fence_of(key.on_wire(driver.ledger.fence)):
            return  # the answer to a former owner
        link.answered(key, state.state)
        if driver is not None:
            if state.state in _ENDED and driver.awaits(key, link):
                link.ask_again(state.key)
            driver.woken.set()

    def worker_changed(self) -> None:
        """Lets every run look again."""
        for driver in self.drivers.values():
            driver.woken.set()

    def renew(self, link: WorkerLink, keys: list[wire.StepKey], answer: Renewing) -> None:
        """Answers a heartbeat at once: what is not open in a run of this node is over."""
        answer(self.leases(keys).held, ())

    def leases(self, keys: list[wire.StepKey]) -> Leases:
        """What this node, as their owner, says of attempts: still open, or over."""
        said = Leases([], [])
        for key in keys:
            driver = self.drivers.get(key.run_id)
            if driver is not None and driver.ledger.state.seq:
                open_here = driver.holds(Key.of(key))
                (said.held if open_here else said.over).append(Key.of(key).on_wire(driver.ledger.fence))
        self.measures.renewed(len(said.held))
        return said

    async def take(self, hello: wire.Hello) -> int:
        """The generation of a worker's stream: where there is but one node the later one is the present one."""
        return 0

    def left(self, link: WorkerLink) -> None:
        """A worker's stream has ended: nobody else has to know."""

    async def ended(self, run_ids: set[str]) -> list[str]:
        """Those of the runs that are over."""
        over: list[str] = []
        for run_id in sorted(run_ids):
            try:
                head = await self.journal.head(run_id)
            except NotFound:
                continue
            if head.terminal:
                over.append(run_id)
        return over


def _said(folded: RunFold) -> bool:
    return folded.state.blocked_reason in (INTERNAL_ERROR, LOG_BEHIND) or terminal(folded.state.phase)
