"""One way to run any set of services in one process; whether there is one process or many is configuration only."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from infra.auth import Verifier, prepare_identity
from infra.channels import MAX_MESSAGE_BYTES, Readiness, dial, file_token
from infra.clock import Clock, SystemClock
from infra.errors import Internal, Precondition, SkyError, cause_of
from infra.health import Health
from infra.ids import Ids, system_ids
from infra.interceptors import Guard, permissions_of, unary_methods
from infra.local import LocalCalls
from infra.log import event_logger
from infra.mesh_service import DESCRIPTOR as MESH
from infra.mesh_service import HealthBoard, MeshServicer
from infra.metrics import NO_METRICS, Metrics
from infra.reflection import enable_reflection
from infra.settings import Settings, split_address
from infra.telemetry import Telemetry, telemetry
from infra.vital_signs import RpcMetrics, look_at_disk, measured_disk, measured_health, said_of_itself
from skyagent.mesh.v1 import mesh_service_pb2_grpc as mesh_rpc

Register = Callable[[grpc.aio.Server], None]
Loop = Callable[[], Awaitable[None]]
_T = TypeVar("_T")
_Opener = Callable[["Runtime"], AbstractAsyncContextManager[_T]]

STREAM_NOTICE: Final = 0.5
"""Seconds between `draining` and the end of open streams: time to say goodbye."""
IDENTITY_LOOK: Final = 86400.0
"""Seconds between two looks at whether a token must be written anew."""
_OPTIONS = (
    # Two servers on one port would share its calls, silently.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """How a service is named, described and brought up.

    `open` acquires what the service needs and yields the function that registers it. It may not call a peer: that
    peer may be this very process, which does not serve yet.
    """

    name: str
    descriptors: tuple[ServiceDescriptor, ...]
    open: Callable[[Runtime], AbstractAsyncContextManager[Register]]
    needs: tuple[str, ...] = ()
    """Facts of its process (infra.health) without which it cannot serve."""


class Runtime:
    """The handful of things that the services of a process share."""

    def __init__(  # it is the list of what is shared
        self,
        settings: Settings,
        clock: Clock,
        ids: Ids,
        told: Telemetry,
        address: str,
        stack: AsyncExitStack,
        guard: Guard,
        metrics: Metrics,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.ids = ids
        self.telemetry = told
        self.metrics = metrics
        """What this process counts."""
        self.health = Health(clock)
        """Facts that this process looks at. Add to it in open()."""
        self.address = address
        """Where this process serves, with the port that it really got."""
        self.draining = asyncio.Event()
        """Set first thing when the process is about to end."""
        self.local = LocalCalls(guard, self.draining)
        """What is served here, for callers here."""
        self._stack = stack
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._shared: dict[object, asyncio.Future[object]] = {}
        self._loops: dict[str, Loop] = {}
        self._looping = False

    def channel(self, service: str) -> grpc.aio.Channel:
        """To a service by name: in the process that settings.peers names, else in this one. Acts with role internal."""
        address = self._address(service)
        if address not in self._channels:
            spans = self.telemetry.client_interceptors()  # they make their spans on the wire
            self._channels[address] = dial(
                address,
                token=file_token(self.settings.internal_token_path),
                readiness=Readiness.WAIT,
                deadline=self.settings.default_deadline,
                interceptors=spans,
                local=self.local if self.near(service) else None,
            )
            self._stack.push_async_callback(self._channels[address].close)
        return self._channels[address]

    def near(self, service: str) -> bool:
        """Whether unary calls to a service by name need no wire, provided that this process serves it."""
        return self._address(service) == self.address and not self.telemetry.client_interceptors()

    def _address(self, service: str) -> str:
        return self.settings.peers.get(service, self.address)

    async def shared(self, opener: _Opener[_T]) -> _T:
        """What `opener` opens: once per process, whoever asks first; closed after all services. Call it in open()."""
        if opener not in self._shared:
            opened = self._shared[opener] = asyncio.get_running_loop().create_future()
            try:
                opened.set_result(await self._stack.enter_async_context(opener(self)))
            except BaseException as error:
                del self._shared[opener]
                opened.set_exception(
                    error if isinstance(error, Exception) else Internal("CANCELLED", "opening was cut off")
                )
                opened.exception()  # nobody else may be waiting
                raise
        return cast("_T", await asyncio.shield(self._shared[opener]))

    def background(self, name: str, loop: Loop) -> None:
        """Run a loop from when the process serves until it drains; its error ends the process. Call it in open()."""
        if self._looping:
            raise Internal("LOOP_TOO_LATE", f"the loop {name!r} would never run: it was not given in open()")
        if name in self._loops:
            raise Internal("LOOP_TWICE", f"there is a loop {name!r} already; give this one another name")
        self._loops[name] = loop

    async def run_loops(self) -> None:
        """For serving(): everything given to background(), until cancelled or until one fails."""
        self._looping = True
        async with asyncio.TaskGroup() as group:
            for name, loop in self._loops.items():
                group.create_task(_run_loop(name, loop), name=name)


@asynccontextmanager
async def serving(
    services: Iterable[Service], settings: Settings, *, clock: Clock | None = None, ids: Ids | None = None
) -> AsyncGenerator[Runtime]:
    """Serve until the block ends, then drain. If a loop fails meanwhile, its error is raised when the block ends."""
    async with _started(tuple(services), settings, clock, ids) as started:
        yield started.runtime


async def serve(services: Iterable[Service], settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain; or until a loop fails, then raise its error."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with _started(tuple(services), settings, None, None) as started:
            _log.info("mesh.serving", address=started.runtime.address, node_id=settings.node_id)
            started.loops.add_done_callback(lambda loops: stop.set() if _failure(loops) else None)
            await stop.wait()
            _log.info("mesh.draining")
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@dataclass(frozen=True, slots=True)
class _Started:
    runtime: Runtime
    loops: asyncio.Task[None]


@asynccontextmanager
async def _started(
    services: tuple[Service, ...], settings: Settings, clock: Clock | None, ids: Ids | None
) -> AsyncGenerator[_Started]:
    clock = clock or SystemClock()
    ids = ids or system_ids(clock)
    descriptors = [*(descriptor for service in services for descriptor in service.descriptors), MESH]
    permissions = permissions_of(descriptors)
    prepare_identity(settings, clock, ids)
    async with AsyncExitStack() as stack:
        told = await stack.enter_async_context(telemetry(settings, settings.node_id, ids))
        metrics = Metrics(clock.monotonic) if settings.metrics else NO_METRICS
        guard = Guard(permissions, Verifier(settings.keys_dir, clock), settings, ids, RpcMetrics(metrics))
        traced = told.server_interceptors(unary_methods(descriptors))
        server = grpc.aio.server(interceptors=[*traced, guard], options=_OPTIONS)
        runtime = Runtime(settings, clock, ids, told, _bind(server, settings.listen), stack, guard, metrics)
        _look_at_itself(runtime, server)
        try:
            for service in services:
                register = await stack.enter_async_context(service.open(runtime))
                register(server)
                register(cast("grpc.aio.Server", runtime.local))
        except BaseException:
            # Only a server that was started gives its port back.
            await server.start()
            await server.stop(None)
            raise
        runtime.background("mesh.identity", lambda: _keep_identity(settings, clock, ids))
        checks = await _describe(server, [descriptor.full_name for descriptor in descriptors])
        board = HealthBoard(runtime.health, checks, _needs(services))
        runtime.background("mesh.health", board.watch)
        await server.start()
        # A task of its own, not a TaskGroup around the yield: a test's fixture is left by another task than entered.
        loops = asyncio.create_task(runtime.run_loops(), name="mesh.loops")  # noqa: TID251  # awaited by _drain
        try:
            yield _Started(runtime, loops)
        finally:
            await _drain(_Started(runtime, loops), server, checks, guard)


def _look_at_itself(runtime: Runtime, server: grpc.aio.Server) -> None:
    """What every process serves and looks at, whatever its services are."""
    settings, health_ = runtime.settings, runtime.health
    servicer = MeshServicer(health_, runtime.metrics, runtime.clock, settings.node_id)
    mesh_rpc.add_MeshServiceServicer_to_server(servicer, server)
    health_.add("disk", partial(look_at_disk, settings.data_dir))
    for source in (said_of_itself(settings.node_id), measured_disk(settings.data_dir), measured_health(health_)):
        runtime.metrics.read(source)


def _needs(services: Iterable[Service]) -> Mapping[str, tuple[str, ...]]:
    return {descriptor.full_name: service.needs for service in services for descriptor in service.descriptors}


async def _keep_identity(settings: Settings, clock: Clock, ids: Ids) -> None:
    """Tokens live for weeks, and a mesh may run longer than that without a restart."""
    while True:
        await clock.sleep(IDENTITY_LOOK)
        try:
            await asyncio.to_thread(prepare_identity, settings, clock, ids)
        except (SkyError, OSError) as error:  # tomorrow is early enough
            _log.error("mesh.identity_not_kept", error=error)


def _bind(server: grpc.aio.Server, listen: str) -> str:
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as bad:
        raise Precondition(
            "ADDRESS_IN_USE",
            f"cannot listen on {listen}: it is taken, or not of this machine; stop what listens there"
            " (`skyagent down`, or find it by `ss -ltnp`), or set SKYAGENT_LISTEN to another port",
            address=listen,
        ) from bad
    host, _ = split_address(listen)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


async def _describe(server: grpc.aio.Server, names: list[str]) -> health.aio.HealthServicer:
    """Health per service and as a whole; reflection."""
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in (health.OVERALL_HEALTH, *names):
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    enable_reflection(names, server)
    return checks


async def _drain(started: _Started, server: grpc.aio.Server, checks: health.aio.HealthServicer, guard: Guard) -> None:
    """Nobody is sent here any more, nothing new is decided, and what runs may end."""
    grace = started.runtime.settings.drain_grace
    await checks.enter_graceful_shutdown()
    started.runtime.draining.set()
    started.loops.cancel()
    async with asyncio.TaskGroup() as group:
        stopped = group.create_task(server.stop(grace))
        await asyncio.wait([stopped], timeout=STREAM_NOTICE)
        guard.end_streams()
        await asyncio.wait([started.loops], timeout=grace)
    if not started.loops.done():
        raise Internal(
            "LOOP_STUCK", f"a loop did not end within {grace:g} s of its cancellation; it may not swallow it"
        )
    if error := _failure(started.loops):
        raise error


def _failure(loops: asyncio.Task[None]) -> BaseException | None:
    error = None if loops.cancelled() else loops.exception()
    return error and cause_of(error)


async def _run_loop(name: str, loop: Loop) -> None:
    try:
        await loop()
    except Exception as error:
        _log.error("mesh.loop_failed", error=error, loop=name)
        raise
