"""The processes of the simulation: control planes and workers, made of the real parts, that die and come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, TypeVar, cast

import control.orchestrator.relay.opening
import control.orchestrator.relay.reach
import control.orchestrator.service
import execution.worker
from control.agentfs import AgentFs, RunFolders, shared_agentfs
from control.journal import SqlJournal, shared_journal
from control.journal.appending import topics
from control.orchestrator.links import Key
from control.orchestrator.service import SERVICE as ORCHESTRATOR
from execution import journal as worker_journal
from execution.attempts import AttemptKey
from execution.blobs import Spool
from execution.committer import Committer, _Job  # pyright: ignore[reportPrivateUsage] -- the thread is left out here
from execution.joints import Joint
from execution.lease import Lease
from execution.parts import Parts
from execution.uplink import Uplink
from execution.worker import (
    Worker,
    WorkerSettings,
    _introduction,  # pyright: ignore[reportPrivateUsage] -- run_worker without files and signals
    _swept_spool,  # pyright: ignore[reportPrivateUsage] -- the same
)
from infra.auth import Caller, Role
from infra.backoff import Backoff
from infra.blobs import BlobStore, FileBlobs, shared_blobs
from infra.db import shared_database
from infra.errors import SkyError, cause_of
from infra.ids import RandomIds
from infra.interceptors import Guard
from infra.mesh import Runtime
from infra.metrics import NO_METRICS
from infra.settings import LeaseSettings, Settings
from infra.telemetry import Telemetry, _Off  # pyright: ignore[reportPrivateUsage] -- what telemetry() gives when it is off
from tests.chaos.faults import replaced
from tests.simulation.clock import VirtualClock
from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.network import ANY, Host, Network
from tests.simulation.store import Disk, News, VirtualDatabase
from tests.simulation.world import Hands, Policy, World

T = TypeVar("T")

SETTINGS = Settings(data_dir=Path("/nowhere"), lease=LeaseSettings(ttl=3.0, heartbeat=1.0, grace=1.0))

_SURROUNDINGS: ContextVar[Surroundings] = ContextVar("surroundings")


class Killed(BaseException):
    """This very process was killed by the line that raises it."""


@dataclass(eq=False)
class Surroundings:
    """What all processes of one schedule share: the world outside of them."""

    loop: VirtualLoop
    chance: Random
    network: Network
    disk: Disk
    news: News
    world: World
    folder: Path
    several: bool
    told: Callable[[str], None]
    seeds: Random = field(default_factory=Random)
    nodes: frozenset[str] = frozenset()
    """Names of the control planes."""
    withholding: bool = False
    """Whether the next Assign of what must not happen twice stays on the way while its sender dies."""
    withheld: dict[Key, bytes] = field(default_factory=dict["Key", bytes])
    lost_its_assign: Callable[[Process, str], None] = lambda _process, _run_id: None

    def __post_init__(self) -> None:
        self.loop.outside.run(_SURROUNDINGS.set, self)

    def blobs(self) -> FileBlobs:
        return FileBlobs(self.folder / "blobs")

    def ids(self, clock: VirtualClock) -> RandomIds:
        return RandomIds(clock, Random(self.seeds.getrandbits(64)))


def surroundings() -> Surroundings:
    """Of the process that asks."""
    return _SURROUNDINGS.get()


class Machine:
    """Something that runs one process at a time, and the clock that it keeps over its deaths."""

    def __init__(self, name: str, around: Surroundings) -> None:
        self.name, self.around = name, around
        self.clock = VirtualClock(around.loop)
        self.ids = around.ids(self.clock)
        self.process: Process | None = None
        self.main: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self.process is not None and self.process.alive

    def start(self) -> None:
        """A new life."""
        if self.up:
            return
        self.process = Process(self.name, self.around.loop)
        self.around.told(f"start {self.name}")
        context = self.process.context()
        self.main = self.around.loop.create_task(self._live(self.process), context=context)

    def kill(self) -> None:
        """As `kill -9` does."""
        if self.process is not None and self.process.alive:
            self.around.told(f"kill {self.name}")
            self._gone(self.process)

    def drain(self) -> None:
        """As SIGTERM does."""
        if self.up and self.main is not None:
            self.around.told(f"drain {self.name}")
            self.around.loop.call_soon(self.main.cancel, context=cast("Process", self.process).context())

    def _gone(self, process: Process) -> None:
        self.around.loop.kill(process)
        self.around.network.died(process)
        self.around.news.forget(process)

    async def _live(self, process: Process) -> None:
        try:
            await self.live()
        except asyncio.CancelledError:
            pass
        except BaseException as raised:  # noqa: BLE001 -- whatever ended the process is told
            error = cause_of(raised)
            self.around.told(f"{self.name} ended: {error!r}")
            if not isinstance(error, SkyError):
                self.around.loop.errors.append(f"{self.name} broke: {error!r}")
        if process.alive:
            self._gone(process)

    async def live(self) -> None:
        """The program."""
        raise NotImplementedError


class VirtualRuntime(Runtime):
    """The mesh's runtime, with the simulation's database, policy and network in the place of the real ones."""

    def __init__(self, machine: ControlPlane, given: dict[object, object]) -> None:
        settings = SETTINGS.model_copy(update={"node_id": machine.name, "data_dir": machine.around.folder})
        telemetry: Telemetry = _Off(machine.ids)
        stack = AsyncExitStack()  # a process that is killed never leaves it
        super().__init__(
            settings, machine.clock, machine.ids, telemetry, machine.name, stack, cast("Guard", None), NO_METRICS
        )
        self._machine, self._given = machine, given

    def channel(self, service: str) -> Any:  # noqa: ANN401 -- of a channel it has what is used
        around = self._machine.around
        if service == "policy-engine":
            return Policy(self._machine.ids, around.world)
        who = Caller("control-plane", "default", Role.INTERNAL)
        return around.network.channel(who, PROCESS.get(), self._address(service))

    def near(self, service: str) -> bool:
        return True

    async def shared(self, opener: Callable[..., Any]) -> Any:  # noqa: ANN401 -- as it is asked for
        return self._given[opener] if opener in self._given else await super().shared(opener)


class ControlPlane(Machine):
    """One node: the orchestrator as the mesh opens it."""

    def __init__(self, name: str, around: Surroundings) -> None:
        super().__init__(name, around)
        self.runtime: VirtualRuntime | None = None

    async def live(self) -> None:
        around = self.around
        database, journal = opened(around, self.clock)
        blobs: BlobStore = around.blobs()
        agentfs = AgentFs(database, RunFolders(around.folder / "agentfs", around.folder / "blobs"))
        given: dict[object, object] = {
            shared_database: database,
            shared_journal: journal,
            shared_blobs: blobs,
            shared_agentfs: agentfs,
        }
        runtime = VirtualRuntime(self, given)
        runtime.background("journal.news", journal.hear)
        host = Host(PROCESS.get())
        async with ORCHESTRATOR.open(runtime) as register:
            register(cast("Any", host))
            around.network.hosts[self.name] = host
            await runtime.run_loops()


def opened(around: Surroundings, clock: VirtualClock) -> tuple[VirtualDatabase, SqlJournal]:
    """The journal as the process that asks has it."""
    database = VirtualDatabase(around.disk, around.news, around.loop, around.chance)
    journal = SqlJournal(database, clock)
    # Whoever watches is another process here, as on a shared database; SQLite's own appends announce nothing.
    journal._appends.topics = topics  # pyright: ignore -- the seam
    if around.several:
        database.share()
    return database, journal


class VirtualCommitter(Committer):
    """The worker's committer without its thread."""

    def __init__(self, journal: worker_journal.Journal, loop: VirtualLoop, chance: Random) -> None:
        super().__init__(journal)
        self._virtual, self._chance = loop, chance
        self._busy = False

    def submit(self, work: Callable[[worker_journal.Journal], T]) -> asyncio.Future[T]:
        waiter: asyncio.Future[T] = self._virtual.create_future()
        self._jobs.put(_Job(work, waiter))
        if not self._busy:
            self._busy = True
            self._virtual.call_later(self._sync(), self._flush)
        return waiter

    def _sync(self) -> float:
        return self._chance.expovariate(1000) if self._chance.random() > 0.01 else self._chance.expovariate(2)

    def _flush(self) -> None:
        batch = self._next()
        failure = self._commit(batch)
        self._virtual.call_later(self._chance.expovariate(4000), self._settle, batch, failure)
        self._busy = not self._jobs.empty()
        if self._busy:
            self._virtual.call_later(self._sync(), self._flush)

    def _next(self) -> list[Any]:
        """What has come, without waiting for more."""
        batch: list[Any] = []
        while not self._jobs.empty():
            batch.append(self._jobs.get())
        return batch


class WorkerMachine(Machine):
    """A worker with its own journal, which outlives its processes."""

    def __init__(self, name: str, around: Surroundings, deadly: float) -> None:
        super().__init__(name, around)
        self.folder = around.folder / "workers" / name
        self.journal_file = worker_journal._open(":memory:", isolation_level=None)  # pyright: ignore -- the file
        self.deadly = deadly
        """How likely it is that a joint kills it."""

    async def live(self) -> None:
        around, clock, ids = self.around, self.clock, self.ids
        journal = worker_journal._prepare(self.journal_file, self.folder, clock, ids)  # pyright: ignore -- open_journal without files
        committer = VirtualCommitter(journal, around.loop, around.chance)
        executor = Hands(around.world)
        told = WorkerSettings(connect=ANY, data_dir=around.folder, worker_id=self.name, max_concurrent_steps=4)
        journal_id = await committer.submit(worker_journal.Journal.journal_id)
        introduction = _introduction(executor, told, ids.uuid(), journal_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        spool: Spool = await _swept_spool(self.folder / "spool", committer)
        stopping = asyncio.Event()
        async with executor, asyncio.TaskGroup() as group:
            uplink, lease = Uplink(spool, clock, group), Lease(clock)
            telemetry: Telemetry = _Off(ids)
            parts = Parts(executor, committer, spool, uplink, lease, clock, self, telemetry, group)
            self.stopping = stopping
            await Worker(parts, told, introduction, Backoff(clock, ids), stopping).run()

    def drain(self) -> None:
        if self.up and hasattr(self, "stopping"):
            self.around.told(f"drain {self.name}")
            self.around.loop.call_soon(self.stopping.set, context=cast("Process", self.process).context())

    def reach(self, joint: Joint, key: AttemptKey, effect_class: int = 0) -> None:
        """As execution.joints.Joints: some die here."""
        if self.up and self.around.chance.random() < self.deadly:
            self.around.told(f"{self.name} dies at {joint}")
            self.kill()
            raise Killed


def _no_token(_: Path) -> Callable[[], str]:
    return str


@contextmanager
def dialling() -> Generator[None]:
    """Who dials, dials into the simulation's network; and templates, of which no run makes use, are read once."""

    def dial(address: str, **_: object) -> object:
        process, around = PROCESS.get(), surroundings()
        worker = Caller(process.name, "default", Role.WORKER)
        node = Caller("control-plane", "system", Role.INTERNAL)
        return around.network.channel(node if process.name in around.nodes else worker, process, address)

    services = control.orchestrator.service
    with (
        replaced(execution.worker, dial=dial),
        replaced(control.orchestrator.relay.reach, dial=dial),
        replaced(control.orchestrator.relay.opening, file_token=_no_token),
        replaced(services, installed_templates=cache(services.installed_templates)),
    ):
        yield
