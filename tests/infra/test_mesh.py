from __future__ import annotations

import asyncio
import json
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from infra.auth import TOKEN_LIFE, Role, Verifier, acting_for, prepare_worker_token
from infra.clock import ManualClock, SystemClock
from infra.errors import Denied, Internal, NotFound, Precondition
from infra.ids import system_ids
from infra.mesh import IDENTITY_LOOK, Register, Runtime, Service, serving
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.execution.v1 import session_service_pb2 as pb
from skyagent.execution.v1 import session_service_pb2_grpc as rpc
from tests.infra.peer import SESSIONS, WORKERS, Sessions, health_of, service_of, stub_at

Mint = Callable[[Role], str]
WHO = pb.ListSessionsRequest()


def quiet(opened: Callable[[Runtime], AbstractAsyncContextManager[None]]) -> Service:
    """A service without rpcs."""

    @asynccontextmanager
    async def enter(runtime: Runtime) -> AsyncGenerator[Register]:
        async with opened(runtime):
            yield lambda server: None

    return Service("quiet", (), enter)


class Relay(Sessions):
    """Answers by asking the service of that name, wherever it runs."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__()
        self._peer = rpc.SessionServiceStub(runtime.channel("sessions"))

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> pb.ListSessionsResponse:
        return await self._peer.ListSessions(request)


@asynccontextmanager
async def open_relay(runtime: Runtime) -> AsyncGenerator[Register]:
    relay = Relay(runtime)  # pyright: ignore[reportAbstractUsage]
    yield lambda server: rpc.add_SessionServiceServicer_to_server(relay, server)


RELAY = Service("relay", (SESSIONS,), open_relay)


async def test_a_peer_in_another_process_is_asked_on_behalf_of_the_caller(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    async with serving([service_of(sessions)], settings) as far:
        near_settings = settings.model_copy(update={"peers": {"sessions": far.address}})
        async with serving([RELAY], near_settings) as near, stub_at(near.address, mint(Role.VIEWER)) as stub:
            (who,) = (await stub.ListSessions(WHO)).sessions
    assert (who.session_id, who.run_id, who.kind) == ("control-plane", "acme", "internal")


async def test_a_service_that_no_peer_is_named_for_is_in_this_very_process(
    sessions: Sessions, settings: Settings
) -> None:
    async with serving([service_of(sessions)], settings) as runtime:
        with acting_for("acme"):
            stub = rpc.SessionServiceStub(runtime.channel("sessions"))
            assert (await stub.ListSessions(WHO)).sessions[0].run_id == "acme"


async def test_an_error_of_a_peer_reaches_the_caller_as_it_was(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    def act() -> None:
        raise NotFound("RUN_NOT_FOUND", "run 'r' does not exist", run_id="r")

    sessions.act = act
    async with serving([service_of(sessions)], settings) as far:
        near_settings = settings.model_copy(update={"peers": {"sessions": far.address}})
        async with serving([RELAY], near_settings) as near, stub_at(near.address, mint(Role.VIEWER)) as stub:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.ListSessions(WHO)
    error = from_rpc_error(raised.value)
    assert isinstance(error, NotFound)
    assert error.metadata == {"run_id": "r"}


async def test_a_call_to_a_peer_that_is_not_up_yet_waits_for_it(
    sessions: Sessions, settings: Settings, tmp_path: Path
) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
    near_settings = settings.model_copy(update={"peers": {"sessions": address}})
    far_settings = settings.model_copy(update={"listen": address})
    async with serving([], near_settings) as near, asyncio.TaskGroup() as group:
        asked = group.create_task(ask(rpc.SessionServiceStub(near.channel("sessions"))))
        await near.channel("sessions").wait_for_state_change(grpc.ChannelConnectivity.IDLE)
        async with serving([service_of(sessions)], far_settings):
            assert await asked == "internal"


async def ask(stub: rpc.SessionServiceAsyncStub) -> str:
    return (await stub.ListSessions(WHO)).sessions[0].kind


async def test_a_taken_port_is_refused_with_what_to_do(settings: Settings) -> None:
    async with serving([], settings) as first:
        taken = settings.model_copy(update={"listen": first.address})
        with pytest.raises(Precondition, match="SKYAGENT_LISTEN") as refused:
            async with serving([], taken):
                pass
    assert refused.value.reason == "ADDRESS_IN_USE"


async def test_a_service_that_cannot_open_frees_the_port(sessions: Sessions, settings: Settings) -> None:
    @asynccontextmanager
    async def broken(runtime: Runtime) -> AsyncGenerator[None]:
        addresses.append(runtime.address)
        raise Precondition("NO_DISK", "the disk is full")
        yield

    addresses: list[str] = []
    with pytest.raises(Precondition, match="the disk is full"):
        async with serving([quiet(broken)], settings):
            pass
    again = settings.model_copy(update={"listen": addresses[0]})
    async with serving([service_of(sessions)], again) as runtime:
        assert runtime.address == addresses[0]


async def test_health_is_told_for_each_service_and_for_the_whole(sessions: Sessions, settings: Settings) -> None:
    async with serving([service_of(sessions)], settings) as runtime:
        assert await health_of(runtime.address, "") == "SERVING"
        assert await health_of(runtime.address, WORKERS.full_name) == "SERVING"
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await health_of(runtime.address, "skyagent.none.v1.NoService")
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_of_health_is_told_first_that_we_drain(sessions: Sessions, settings: Settings) -> None:
    mesh = serving([service_of(sessions)], settings)
    runtime = await mesh.__aenter__()
    async with grpc.aio.insecure_channel(runtime.address) as channel, asyncio.TaskGroup() as group:
        watch: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/grpc.health.v1.Health/Watch")
        call = watch(health_pb2.HealthCheckRequest().SerializeToString())
        before = await call.read()
        group.create_task(mesh.__aexit__(None, None, None))
        after = await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await call.read()
    told = [
        health_pb2.HealthCheckResponse.FromString(each).status for each in (before, after) if isinstance(each, bytes)
    ]
    assert told == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def grpcurl(*arguments: str) -> str:
    program = shutil.which("grpcurl", path=str(Path(sys.executable).parent))
    assert program, "grpcurl comes with the development dependencies"
    process = await asyncio.create_subprocess_exec(
        *(program, "-plaintext", *arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def test_grpcurl_lists_every_service_by_reflection(sessions: Sessions, settings: Settings) -> None:
    async with serving([service_of(sessions)], settings) as runtime:
        assert set((await grpcurl(runtime.address, "list")).split()) == {
            SESSIONS.full_name,
            WORKERS.full_name,
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
            "skyagent.mesh.v1.MeshService",
        }


async def test_grpcurl_calls_with_nothing_but_an_address_and_a_token(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    async with serving([service_of(sessions)], settings) as runtime:
        header = f"authorization: Bearer {mint(Role.VIEWER)}"
        said = await grpcurl("-H", header, runtime.address, f"{SESSIONS.full_name}/ListSessions")
    assert json.loads(said)["sessions"][0]["kind"] == "viewer"


@pytest.mark.parametrize(
    ("symbol", "told"),
    [
        (f"{SESSIONS.full_name}.ListSessions", "rpc ListSessions"),
        ("skyagent.execution.v1.Session", "message Session"),
        ("grpc.reflection.v1.ServerReflection", "service ServerReflection"),
    ],
)
async def test_grpcurl_describes_a_method_a_message_and_reflection_itself(
    sessions: Sessions, settings: Settings, symbol: str, told: str
) -> None:
    async with serving([service_of(sessions)], settings) as runtime:
        assert told in await grpcurl(runtime.address, "describe", symbol)


async def test_what_does_not_exist_is_not_described(sessions: Sessions, settings: Settings) -> None:
    async with serving([service_of(sessions)], settings) as runtime:
        with pytest.raises(AssertionError, match="Symbol not found"):
            await grpcurl(runtime.address, "describe", "skyagent.none.v1.Nothing")


async def test_reflection_v1_answers_as_v1alpha_does(sessions: Sessions, settings: Settings) -> None:
    list_services = b"\x3a\x01*"  # field 7, list_services, "*"
    answers: list[object] = []
    async with (
        serving([service_of(sessions)], settings) as runtime,
        grpc.aio.insecure_channel(runtime.address) as channel,
    ):
        for version in ("v1", "v1alpha"):
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            reflect: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            call = reflect()
            await call.write(list_services)
            answers.append(await call.read())
            await call.done_writing()
    assert answers[0] == answers[1]
    assert isinstance(answers[0], bytes)
    assert SESSIONS.full_name.encode() in answers[0]


async def test_what_is_shared_is_opened_once_and_closed_after_the_services(settings: Settings) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def journal(runtime: Runtime) -> AsyncGenerator[object]:
        told.append("journal opened")
        yield object()
        told.append("journal closed")

    def user(name: str) -> Service:
        @asynccontextmanager
        async def opened(runtime: Runtime) -> AsyncGenerator[None]:
            found.append(await runtime.shared(journal))
            yield
            told.append(f"{name} closed")

        return quiet(opened)

    found: list[object] = []
    async with serving([user("first"), user("second")], settings):
        assert found[0] is found[1]
    assert told == ["journal opened", "second closed", "first closed", "journal closed"]


async def test_two_that_ask_at_once_share_one_opening(settings: Settings) -> None:
    opened, proceed = list[str](), asyncio.Event()

    @asynccontextmanager
    async def journal(runtime: Runtime) -> AsyncGenerator[object]:
        opened.append("journal")
        await proceed.wait()
        yield object()

    async with serving([], settings) as runtime:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(runtime.shared(journal)) for _ in range(2)]
            proceed.set()
        assert asked[0].result() is asked[1].result()
    assert opened == ["journal"]


async def test_what_failed_to_open_may_be_tried_again(settings: Settings) -> None:
    failures = [Precondition("LOCKED", "somebody else has the journal")]

    @asynccontextmanager
    async def journal(runtime: Runtime) -> AsyncGenerator[str]:
        if failures:
            raise failures.pop()
        yield "journal"

    async with serving([], settings) as runtime:
        with pytest.raises(Precondition, match="somebody else"):
            await runtime.shared(journal)
        assert await runtime.shared(journal) == "journal"


async def test_a_loop_runs_once_the_process_serves_and_may_call_it(sessions: Sessions, settings: Settings) -> None:
    seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @asynccontextmanager
    async def opened(runtime: Runtime) -> AsyncGenerator[None]:
        async def loop() -> None:
            seen.set_result(await ask(rpc.SessionServiceStub(runtime.channel("sessions"))))

        runtime.background("asker", loop)
        yield

    async with serving([service_of(sessions), quiet(opened)], settings):
        assert await seen == "internal"


async def test_the_error_of_a_loop_is_raised_when_the_block_ends(settings: Settings) -> None:
    @asynccontextmanager
    async def opened(runtime: Runtime) -> AsyncGenerator[None]:
        async def loop() -> None:
            broke.set()
            raise Denied("NO_LEASE", "the lease is somebody else's")

        runtime.background("driver", loop)
        yield

    broke = asyncio.Event()
    with pytest.raises(Denied, match="somebody else"):
        async with serving([quiet(opened)], settings):
            await broke.wait()


async def test_tokens_are_written_anew_while_the_mesh_runs(settings: Settings) -> None:
    clock = ManualClock(SystemClock().now_ms())
    async with serving([], settings, clock=clock) as runtime:
        first = prepare_worker_token(settings, clock, system_ids(clock), "noop-1").read_text()
        loops = 1 + len(runtime.health.facts())  # who keeps tokens, and who looks after health
        for _ in range(int(TOKEN_LIFE / IDENTITY_LOOK)):
            await clock.until_sleeping(loops)
            await clock.leap(IDENTITY_LOOK)
        await clock.until_sleeping(loops)
        kept = settings.worker_token_path("noop-1").read_text()
        assert kept != first
        assert Verifier(settings.keys_dir, clock).verify(kept).role is Role.WORKER


def with_loops(running: asyncio.Event, *names: str) -> Service:
    async def loop() -> None:
        running.set()

    @asynccontextmanager
    async def open_it(runtime: Runtime) -> AsyncGenerator[Register]:
        for name in names:
            runtime.background(name, loop)
        yield lambda _server: None

    return Service("loops", (), open_it)


async def test_two_loops_may_not_share_a_name(settings: Settings) -> None:
    with pytest.raises(Internal, match="driver"):
        async with serving([with_loops(asyncio.Event(), "driver", "driver")], settings):
            pass


async def test_a_loop_that_would_never_run_is_refused(settings: Settings) -> None:
    running = asyncio.Event()
    async with serving([with_loops(running, "driver")], settings) as runtime:
        await running.wait()
        with pytest.raises(Internal, match="would never run"):
            runtime.background("late", runtime.run_loops)


async def test_a_method_without_a_permission_keeps_the_process_from_starting(
    sessions: Sessions, settings: Settings
) -> None:
    health = health_pb2.DESCRIPTOR.services_by_name["Health"]
    careless = replace(service_of(sessions), descriptors=(SESSIONS, health))
    with pytest.raises(Precondition, match="says no permission"):
        async with serving([careless], settings):
            pass


async def test_a_method_that_is_served_but_not_declared_is_refused(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    careless = replace(service_of(sessions), descriptors=(WORKERS,))
    async with serving([careless], settings) as runtime, stub_at(runtime.address, mint(Role.ADMIN)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ListSessions(WHO)
    assert from_rpc_error(raised.value).reason == "METHOD_NOT_DECLARED"


async def test_a_process_on_an_ipv6_loopback_tells_an_address_that_can_be_dialled(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    six = settings.model_copy(update={"listen": "[::1]:0"})
    async with serving([service_of(sessions)], six) as runtime, stub_at(runtime.address, mint(Role.VIEWER)) as stub:
        assert (await stub.ListSessions(WHO)).sessions[0].session_id == "ada"
