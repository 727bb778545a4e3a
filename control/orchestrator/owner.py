"""Owns runs: claims those that have no living owner, drives each in a task of its own, and hands them over at drain."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from control.core.run import FOLD_VERSION
from control.journal import Journal, Node, RunHead, StaleOwner
from control.orchestrator.driver import Driver, wait_for
from control.orchestrator.links import Key, WorkerLink
from infra.clock import Clock
from infra.errors import NotFound, cause_of
from infra.log import event_logger
from skyagent.execution.v1 import worker_service_pb2 as wire

CLAIM_AT_ONCE = 256
POLL_SECONDS = 2.0

log = event_logger(__name__)


@dataclass(slots=True)
class Owner:
    """The runs of this node. It is what the workers' streams talk to."""

    journal: Journal
    node: Node
    clock: Clock
    new_driver: Callable[[RunHead], Driver]
    drivers: dict[str, Driver] = field(default_factory=dict[str, Driver])
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _early: defaultdict[str, list[tuple[WorkerLink, wire.StepResult]]] = field(
        default_factory=lambda: defaultdict[str, "list[tuple[WorkerLink, wire.StepResult]]"](list)
    )

    async def run(self) -> None:
        """Claims and drives until cancelled; then hands every run over at once."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            while True:
                self._woken.clear()
                await self._claim(group)
                await wait_for(self._woken, self.clock, POLL_SECONDS)

    async def _listen(self) -> None:
        async for run_id in self.journal.wakes():
            driver = self.drivers.get(run_id)
            if driver is not None:
                driver.command()
            else:
                self._woken.set()

    async def _claim(self, group: asyncio.TaskGroup) -> None:
        await self.journal.beat(self.node)
        for head in await self.journal.claim(self.node, fold_version=FOLD_VERSION, limit=CLAIM_AT_ONCE):
            driver = self.new_driver(head)
            self.drivers[head.run_id] = driver
            for link, result in self._early.pop(head.run_id, ()):
                driver.results.put(link, result)
            log.info("run.claimed", run_id=head.run_id, epoch=head.epoch)
            group.create_task(self._drive(driver))

    async def _drive(self, driver: Driver) -> None:
        head = driver.ledger.head
        try:
            await driver.drive()
        except asyncio.CancelledError:
            await self.journal.release(head.run_id, head.epoch)
            raise
        except Exception as raised:  # noqa: BLE001 -- one run that breaks must not end the others
            self._broken(head, cause_of(raised))
        finally:
            self.drivers.pop(head.run_id, None)

    def _broken(self, head: RunHead, error: BaseException) -> None:
        """Lets go of a run that another node took, or that this version cannot drive; a restart tries it again."""
        if isinstance(error, StaleOwner):
            log.info("run.lost", run_id=head.run_id, epoch=head.epoch)
        else:
            log.error("run.broken", run_id=head.run_id, error=error)

    async def result(self, link: WorkerLink, result: wire.StepResult) -> None:
        """Passes a result to the run that it is for; one that comes before its run is claimed waits for that."""
        run_id = result.key.run_id
        driver = self.drivers.get(run_id)
        if driver is not None:
            driver.results.put(link, result)
        elif run_id in await self.ended({run_id}):
            late = self.new_driver(await self.journal.head(run_id))
            await late.ledger.load()
            await late.results.record(link, result)
        else:
            self._early[run_id].append((link, result))
            log.warning("result.unclaimed", run_id=run_id, step_id=result.key.step_id)

    async def state(self, link: WorkerLink, state: wire.StepState) -> None:
        """Takes what a worker's journal knows of an attempt."""
        key = Key.of(state.key)
        if state.state == wire.HELD_STATE_RUNNING:
            link.known.add(key)
        elif state.state == wire.HELD_STATE_NEVER_BEGUN:
            link.known.discard(key)
        driver = self.drivers.get(key.run_id)
        if driver is not None:
            driver.woken.set()

    def worker_changed(self) -> None:
        """Lets every run look again."""
        for driver in self.drivers.values():
            driver.woken.set()

    def worker_has_room(self) -> None:
        """Lets the runs that wait for a worker look again."""
        for driver in self.drivers.values():
            if driver.needs_worker:
                driver.woken.set()

    def owned(self, keys: list[wire.StepKey]) -> list[wire.StepKey]:
        """The attempts among these that are open in runs of this node."""
        mine: list[wire.StepKey] = []
        for key in keys:
            driver = self.drivers.get(key.run_id)
            if driver is not None and driver.holds(Key.of(key)):
                mine.append(Key.of(key).on_wire(driver.ledger.fence))
        return mine

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
