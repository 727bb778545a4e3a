"""The worker: opens what it needs, dials the control plane until told to stop, and leaves nothing behind.

    Hello ─ Welcome ─ outcomes again ─ credit ─ { Assign → begun → effect → outcome → StepResult → ResultRecorded }

It is the same for every kind; what runs does not depend on a stream and goes on while the worker dials again.
"""

from __future__ import annotations

import asyncio
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from execution.attempts import State
from execution.blobs import Spool, Store
from execution.committer import Committer, committing
from execution.executor import Executor
from execution.joints import joints_at
from execution.journal import Journal, open_journal
from execution.lease import Lease
from execution.parts import Parts
from execution.session import Introduction, Session
from execution.steps import Steps
from execution.stream import ControlStream
from execution.uplink import Uplink
from infra.backoff import Backoff
from infra.channels import dial, file_token
from infra.clock import Clock
from infra.errors import SkyError
from infra.ids import Ids
from infra.log import event_logger
from infra.telemetry import Telemetry
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.worker_service_pb2_grpc import WorkerServiceStub

GOODBYE: Final = 2.0  # seconds for the control plane to record the last results and to end the stream

# Dialling again cannot help: the control plane will never take this worker, or another took its place.
_FINAL: Final = frozenset({"FAILED_PRECONDITION", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNIMPLEMENTED"})
_SUPERSEDED: Final = "SUPERSEDED"

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker is told when it starts. `connect` is host:port; `drain_grace` is in seconds."""

    connect: str
    data_dir: Path
    worker_id: str
    token_file: Path | None = None
    max_concurrent_steps: int = 4
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    drain_grace: float = 20.0
    version: str = ""
    #: Fault injection: the joint at which the worker kills itself, see execution/joints.py. Empty means never.
    crash_at: str = ""

    @property
    def folder(self) -> Path:
        """Where this worker keeps its journal and the evidence that is not delivered yet."""
        return self.data_dir / "workers" / self.worker_id


def default_worker_id(kind: str) -> str:
    """Stable, so that a restarted worker finds its journal."""
    return f"{kind}-1"


async def run_worker(
    executor: Executor, settings: WorkerSettings, *, clock: Clock, ids: Ids, telemetry: Telemetry
) -> None:
    """Works until SIGTERM, SIGINT or a Drain that names nobody else, then returns.

    Raises Precondition DATA_IN_USE when another process holds this worker's journal, and whatever final answer the
    control plane gave: superseded, denied, incompatible.
    """
    joints = joints_at(settings.crash_at)
    with (
        open_journal(settings.folder, clock=clock, ids=ids) as journal,
        committing(journal) as committer,
    ):
        introduction = _introduction(executor, settings, ids.uuid(), await committer.submit(Journal.journal_id))
        spool = await _swept_spool(settings.folder / "spool", committer)
        stopping = asyncio.Event()
        with _on_signal(stopping.set), _sole_error():
            async with executor, asyncio.TaskGroup() as group:
                uplink, lease = Uplink(spool, clock, group), Lease(clock)
                parts = Parts(executor, committer, spool, uplink, lease, clock, joints, telemetry, group)
                watch = group.create_task(committer.broken())
                await Worker(parts, settings, introduction, Backoff(clock, ids), stopping).run()
                watch.cancel()


class Worker:
    """A worker from its first dialling to its Goodbye."""

    def __init__(
        self,
        parts: Parts,
        settings: WorkerSettings,
        introduction: Introduction,
        backoff: Backoff,
        stopping: asyncio.Event,
    ) -> None:
        self._parts = parts
        self._introduction = introduction
        self._backoff = backoff
        self._stopping = stopping
        self._stop_grace = settings.drain_grace
        self._steps = Steps(parts, settings.max_concurrent_steps, self._freed)
        self._token = file_token(settings.token_file) if settings.token_file else None
        self._connect = settings.connect
        self._addresses = deque([settings.connect])
        """Where to dial, and where next when that fails."""
        self._session: Session | None = None
        self._leaving = False

    async def run(self) -> None:
        """Until told to stop; then what runs ends, and the control plane is told."""
        dialling = self._parts.group.create_task(self._dial())
        await self._stopping.wait()
        await self._drain()
        await self._within(GOODBYE, asyncio.wait([dialling]))
        dialling.cancel()

    async def _dial(self) -> None:
        clock = self._parts.clock
        while not self._leaving:
            started, address = clock.monotonic(), self._addresses[0]
            try:
                await self._converse(address)
                self._backoff.forget()  # it was ended in order: who did that will be there, or named another
            except SkyError as failure:
                if failure.code in _FINAL or failure.reason == _SUPERSEDED:
                    raise
                log.warning("worker.disconnected", address=address, error=failure)
                if self._addresses[0] == address:  # else it was told of another meanwhile
                    self._addresses.rotate(-1)
            if clock.monotonic() - started > Backoff.LONGEST:
                self._backoff.forget()
            if not self._leaving:
                await self._backoff.wait()

    async def _converse(self, address: str) -> None:
        async with dial(address, token=self._token) as channel:
            stub = WorkerServiceStub(channel)
            stream = ControlStream(stub.Control(), self._parts.clock)
            session = Session(self._parts, self._steps, stream, Store(stub), self._on_drain, self._on_alternates)
            try:
                await session.open(self._introduction)
                self._session = session
                if self._stopping.is_set():
                    session.close_intake()
                await session.run()
            finally:
                self._session = None
                self._parts.uplink.disconnect()
                self._steps.drop_queued()
                stream.close()

    def _freed(self) -> None:
        if self._session is not None:
            self._session.top_up()

    def _on_drain(self, drain: pb.Drain) -> None:
        log.info("worker.drain_asked", reason=drain.reason, alternates=list(drain.alternates))
        grace = self._stop_grace
        if drain.HasField("deadline"):
            grace = max(0.0, (drain.deadline.ToMilliseconds() - self._parts.clock.now_ms()) / 1000)
        if not drain.alternates:
            self._stop_grace = min(self._stop_grace, grace)
            self._stopping.set()
        elif self._session is not None:
            self._addresses.extendleft(reversed(drain.alternates))
            self._parts.group.create_task(self._move(self._session, grace))

    def _on_alternates(self, addresses: Sequence[str]) -> None:
        """Whom to dial when this node is lost without a word; the one that the worker was started with stays known."""
        self._addresses = deque(dict.fromkeys([self._addresses[0], *addresses, self._connect]))
        log.info("worker.alternates", addresses=list(addresses))

    async def _move(self, session: Session, grace: float) -> None:
        """Leaves a control plane that goes away, and takes what runs along."""
        session.close_intake()
        self._steps.drop_queued()
        await self._within(grace, self._parts.uplink.settled())
        await self._within(GOODBYE, session.leave("moving to another node"))
        session.end()

    async def _drain(self) -> None:
        clock, steps = self._parts.clock, self._steps
        started = clock.monotonic()
        if self._session is not None:
            self._session.close_intake()
        steps.close()
        if not await self._within(self._stop_grace, steps.idle()):
            steps.stop_all("the worker is stopping")
            await self._within(GOODBYE, steps.idle())
        self._leaving = True
        if self._session is not None:
            left = self._stop_grace - (clock.monotonic() - started)
            await self._within(max(left, GOODBYE), self._parts.uplink.settled())
        if self._session is not None:
            await self._within(GOODBYE, self._session.leave("the worker is stopping"))

    async def _within(self, seconds: float, event: Awaitable[object]) -> bool:
        """Whether it came in that time."""
        async with asyncio.TaskGroup() as group:
            awaited = group.create_task(_awaiting(event))
            timer = group.create_task(self._parts.clock.sleep(seconds))
            await asyncio.wait([awaited, timer], return_when=asyncio.FIRST_COMPLETED)
            in_time = awaited.done()
            awaited.cancel()
            timer.cancel()
        return in_time


async def _awaiting(event: Awaitable[object]) -> None:
    await event


def _introduction(executor: Executor, settings: WorkerSettings, incarnation_id: str, journal_id: str) -> Introduction:
    return Introduction(
        worker_id=settings.worker_id,
        incarnation_id=incarnation_id,
        journal_id=journal_id,
        kind=executor.kind,
        actions=tuple(executor.actions()),
        labels=settings.labels,
        capacity=settings.max_concurrent_steps,
        version=settings.version,
    )


async def _swept_spool(folder: Path, journal: Committer) -> Spool:
    """The spool without what a former process stored for attempts of which nothing is left to be delivered."""
    spool = Spool(folder)
    held = await journal.submit(Journal.unreleased)
    spool.sweep([record.key for record in held if record.state is State.DONE])
    return spool


@contextmanager
def _on_signal(stop: Callable[[], None]) -> Generator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextmanager
def _sole_error() -> Generator[None]:
    """One cause may end several tasks: a group of nothing but domain errors is its first."""
    try:
        yield
    except BaseExceptionGroup as group:
        domain, other = group.split(SkyError)
        if domain is None or other is not None:
            raise
        raise next(_leaves(domain)) from None


def _leaves(group: BaseExceptionGroup[SkyError]) -> Iterator[SkyError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
