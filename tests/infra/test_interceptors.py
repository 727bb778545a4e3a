from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, cast

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from infra import errors
from infra.auth import Role, acting_for, mint_token
from infra.channels import bearer, dial
from infra.clock import SystemClock
from infra.errors import (
    Conflict,
    Denied,
    Exhausted,
    Internal,
    InvalidArgument,
    NotFound,
    Precondition,
    SkyError,
    Unauthenticated,
    Violation,
)
from infra.interceptors import permissions_of
from infra.mesh import Runtime, serving
from infra.settings import Settings
from infra.status import DETAILS_KEY, from_rpc_error
from skyagent.execution.v1 import session_service_pb2 as pb
from skyagent.execution.v1 import session_service_pb2_grpc as rpc
from skyagent.execution.v1 import worker_service_pb2 as worker_pb
from skyagent.execution.v1 import worker_service_pb2_grpc as worker_rpc
from tests.infra.peer import SESSIONS, Sessions, health_of, service_of, stub_at

if TYPE_CHECKING:
    Raw = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]

Mint = Callable[[Role], str]
WHO = pb.ListSessionsRequest()


@pytest.fixture
async def mesh(sessions: Sessions, settings: Settings) -> AsyncGenerator[Runtime]:
    async with serving([service_of(sessions)], settings) as runtime:
        yield runtime


async def refused(call: Awaitable[object]) -> SkyError:
    """The error that a call must end with, as the caller may have it typed."""
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return from_rpc_error(error.value)


async def test_a_handler_knows_its_caller(mesh: Runtime, mint: Mint) -> None:
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        (who,) = (await stub.ListSessions(WHO)).sessions
    assert (who.session_id, who.run_id, who.kind) == ("ada", "acme", "viewer")


async def test_concurrent_calls_keep_their_own_callers(mesh: Runtime, settings: Settings) -> None:
    async def tenant_seen(tenant: str) -> str:
        token = mint_token(settings, SystemClock(), subject="s", tenant=tenant, role=Role.VIEWER, ttl=60)
        async with stub_at(mesh.address, token) as stub:
            return (await stub.ListSessions(WHO)).sessions[0].run_id

    tenants = [f"tenant-{n}" for n in range(8)]
    async with asyncio.TaskGroup() as group:
        seen = [group.create_task(tenant_seen(tenant)) for tenant in tenants]
    assert [task.result() for task in seen] == tenants


async def test_a_call_without_a_token_is_refused(mesh: Runtime) -> None:
    async with stub_at(mesh.address, None) as stub:
        error = await refused(stub.ListSessions(WHO))
    assert isinstance(error, Unauthenticated)
    assert error.reason == "TOKEN_MISSING"


async def test_an_expired_token_is_refused(mesh: Runtime, settings: Settings) -> None:
    token = mint_token(settings, SystemClock(), subject="ada", tenant="acme", role=Role.ADMIN, ttl=-1)
    async with stub_at(mesh.address, token) as stub:
        error = await refused(stub.ListSessions(WHO))
    assert isinstance(error, Unauthenticated)
    assert error.reason == "TOKEN_EXPIRED"


async def test_a_role_without_the_permission_is_refused_and_told_which_role_may(mesh: Runtime, mint: Mint) -> None:
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.TakeControl(pb.TakeControlRequest(session_id="s")))
    assert isinstance(error, Denied)
    assert error.metadata == {"role": "viewer", "permission": "OPERATE"}
    assert "operator, admin, internal" in error.message


async def test_streams_are_guarded_too(mesh: Runtime, mint: Mint) -> None:
    async with dial(mesh.address, token=lambda: mint(Role.VIEWER)) as channel:
        call = worker_rpc.WorkerServiceStub(channel).Control()
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await call.read()
    assert error.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_method_without_a_permission_stops_the_start() -> None:
    health = cast("ServiceDescriptor", health_pb2.DESCRIPTOR.services_by_name["Health"])
    with pytest.raises(Precondition, match=r"grpc\.health\.v1\.Health\.Check says no permission"):
        permissions_of([SESSIONS, health])


async def test_health_is_told_to_anybody(mesh: Runtime) -> None:
    assert await health_of(mesh.address, SESSIONS.full_name) == "SERVING"


async def test_a_service_acts_for_a_tenant(mesh: Runtime) -> None:
    stub = rpc.SessionServiceStub(mesh.channel("sessions"))
    with acting_for("acme"):
        (who,) = (await stub.ListSessions(WHO)).sessions
    assert (who.run_id, who.kind) == ("acme", "internal")


async def test_a_service_that_acts_for_nobody_is_of_no_tenant_that_owns_anything(mesh: Runtime) -> None:
    stub = rpc.SessionServiceStub(mesh.channel("sessions"))
    assert (await stub.ListSessions(WHO)).sessions[0].run_id == "system"


async def test_nobody_else_may_act_for_another_tenant(mesh: Runtime, mint: Mint) -> None:
    async with stub_at(mesh.address, mint(Role.ADMIN)) as stub:
        with acting_for("globex"):
            error = await refused(stub.ListSessions(WHO))
    assert isinstance(error, Denied)
    assert error.reason == "TENANT_DENIED"


async def test_every_violation_names_its_field_the_rule_and_the_value(mesh: Runtime, mint: Mint) -> None:
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.ListSessions(pb.ListSessionsRequest(run_id="x" * 27, page_size=1001)))
    assert isinstance(error, InvalidArgument)
    fields = {violation.field: violation.description for violation in error.violations}
    assert fields.keys() == {"run_id", "page_size"}
    assert fields["page_size"].endswith("less than or equal to 1000; got 1001")


async def test_a_nested_violation_names_the_whole_path(mesh: Runtime, mint: Mint) -> None:
    hello = worker_pb.Hello(
        worker_id="w1",
        incarnation_id="6f2b1d9e-1111-4a4a-8234-644fd6ad5f9b",
        journal_id="6f2b1d9e-1111-4a4a-8234-644fd6ad5f9b",
        capabilities=worker_pb.Capabilities(kind="noop", max_concurrent_steps=1),
        protocol_version=1,
        held=[worker_pb.HeldStep()],
    )
    async with dial(mesh.address, token=lambda: mint(Role.WORKER)) as channel:
        call = worker_rpc.WorkerServiceStub(channel).Control()
        await call.write(worker_pb.ControlRequest(seq=1, hello=hello))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    error = from_rpc_error(raised.value)
    assert isinstance(error, InvalidArgument)
    assert [violation.field for violation in error.violations] == ["hello.held[0].key"]


async def test_each_message_of_a_stream_is_validated_and_those_before_it_count(
    mesh: Runtime, mint: Mint, sessions: Sessions
) -> None:
    async def inputs() -> AsyncIterator[pb.SendInputRequest]:
        yield pb.SendInputRequest(text="good")
        yield pb.SendInputRequest()

    async with stub_at(mesh.address, mint(Role.OPERATOR)) as stub:
        error = await refused(stub.SendInput(inputs()))
    assert isinstance(error, InvalidArgument)
    assert error.violations[0].field == "input"
    assert sessions.inputs == ["good"]


async def test_a_stream_of_valid_messages_passes_unchanged(mesh: Runtime, mint: Mint) -> None:
    async with dial(mesh.address, token=lambda: mint(Role.WORKER)) as channel:
        call = worker_rpc.WorkerServiceStub(channel).Control()
        for seq in (1, 2, 3):
            await call.write(worker_pb.ControlRequest(seq=seq, credit=worker_pb.Credit(steps=1)))
            assert await call.read() == worker_pb.ControlResponse(seq=seq)
        await call.done_writing()
        assert await call.code() is grpc.StatusCode.OK


async def test_bytes_that_are_no_message_are_the_callers_fault(mesh: Runtime, mint: Mint) -> None:
    async with dial(mesh.address) as channel:
        send: Raw = channel.unary_unary("/skyagent.execution.v1.SessionService/ListSessions")
        error = await refused(send(b"\xff\xff\xff", metadata=bearer(mint(Role.VIEWER))))
    assert isinstance(error, InvalidArgument)


async def test_violations_that_do_not_fit_into_a_status_are_cut_not_lost(mesh: Runtime, mint: Mint) -> None:
    async with dial(mesh.address, token=lambda: mint(Role.WORKER)) as channel:
        call = worker_rpc.WorkerServiceStub(channel).Control()
        hello = worker_pb.Hello(held=[worker_pb.HeldStep() for _ in range(500)])
        await call.write(worker_pb.ControlRequest(seq=1, hello=hello))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    assert isinstance(from_rpc_error(raised.value), InvalidArgument)


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, SkyError) and kind.code not in ("UNKNOWN", "INVALID_ARGUMENT")
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_an_error_keeps_its_kind_reason_and_metadata_across_the_wire(
    mesh: Runtime, mint: Mint, sessions: Sessions, kind: type[SkyError]
) -> None:
    def act() -> None:
        raise kind("RUN_LOST", "run 'r1' is lost; look for it", run_id="r1")

    sessions.act = act
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.ListSessions(WHO))
    assert type(error) is kind
    assert (error.reason, error.message) == ("RUN_LOST", "run 'r1' is lost; look for it")
    assert error.metadata["run_id"] == "r1"


async def test_a_wait_is_told_as_retry_info(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    def act() -> None:
        raise Exhausted("BUDGET_EMPTY", "the budget of run 'r1' is spent", retry_after=1.5)

    sessions.act = act
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.ListSessions(WHO))
    assert isinstance(error, Exhausted)
    assert error.retry_after == 1.5


async def test_the_details_are_the_standard_ones_for_clients_in_any_language(
    mesh: Runtime, mint: Mint, sessions: Sessions
) -> None:
    def act() -> None:
        raise InvalidArgument(Violation("mission.goal", "must say what to do"), reason="GOAL_EMPTY")

    sessions.act = act
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ListSessions(WHO)
    (details,) = (value for key, value in raised.value.trailing_metadata() if key == DETAILS_KEY)
    assert isinstance(details, bytes)
    info, bad = status_pb2.Status.FromString(details).details
    found, violations = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert info.Unpack(found)
    assert bad.Unpack(violations)
    assert (found.reason, found.domain) == ("GOAL_EMPTY", "skyagent")
    assert violations.field_violations[0].field == "mission.goal"


async def test_an_unexpected_error_tells_an_id_and_nothing_else(
    mesh: Runtime, mint: Mint, sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    def act() -> None:
        raise ZeroDivisionError("the secret is xyzzy")

    sessions.act = act
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.ListSessions(WHO))
    assert isinstance(error, Internal)
    assert "xyzzy" not in error.message
    assert error.metadata["error_id"] in error.message
    (record,) = (record for record in caplog.records if record.getMessage() == "rpc.failed")
    assert vars(record)["fields"]["error_id"] == error.metadata["error_id"]
    assert "ZeroDivisionError" in caplog.text


async def test_an_error_out_of_a_task_group_is_that_error(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    def act() -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [Conflict("EPOCH_LOST", "somebody else owns the run")])

    sessions.act = act
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.ListSessions(WHO))
    assert isinstance(error, Conflict)


async def test_an_error_of_a_stream_arrives_with_its_reason(mesh: Runtime, mint: Mint) -> None:
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        call = stub.WatchScreen(pb.WatchScreenRequest(session_id="gone"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
    error = from_rpc_error(raised.value)
    assert isinstance(error, NotFound)
    assert error.metadata == {"session_id": "gone"}


async def test_a_unary_call_without_a_deadline_gets_the_default_one(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    impatient = settings.model_copy(update={"default_deadline": 0.05})
    request = pb.KillSessionRequest(session_id="s").SerializeToString()
    async with serving([service_of(sessions)], impatient) as mesh, grpc.aio.insecure_channel(mesh.address) as channel:
        kill: Raw = channel.unary_unary("/skyagent.execution.v1.SessionService/KillSession")
        error = await refused(kill(request, metadata=bearer(mint(Role.OPERATOR))))
    assert error.reason == "DEFAULT_DEADLINE"
    assert sessions.cancelled.is_set()


async def test_a_longer_deadline_of_the_callers_own_counts_instead(
    sessions: Sessions, settings: Settings, mint: Mint
) -> None:
    impatient = settings.model_copy(update={"default_deadline": 0.01})
    async with serving([service_of(sessions)], impatient) as mesh, stub_at(mesh.address, mint(Role.OPERATOR)) as stub:
        error = await refused(stub.KillSession(pb.KillSessionRequest(session_id="s"), timeout=0.2))
    assert (error.code, error.reason) == ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")


async def test_an_absurd_deadline_is_refused(mesh: Runtime, mint: Mint) -> None:
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        error = await refused(stub.ListSessions(WHO, timeout=100_000))
    assert isinstance(error, InvalidArgument)
    assert error.violations[0].field == "grpc-timeout"


async def test_the_callers_deadline_reaches_the_handler(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    async with stub_at(mesh.address, mint(Role.OPERATOR)) as stub:
        error = await refused(stub.KillSession(pb.KillSessionRequest(session_id="s"), timeout=0.1))
    assert error.code == "DEADLINE_EXCEEDED"
    await asyncio.wait_for(sessions.cancelled.wait(), 5)


async def test_a_cancelled_call_cancels_its_handler(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    async with stub_at(mesh.address, mint(Role.OPERATOR)) as stub:
        call = stub.KillSession(pb.KillSessionRequest(session_id="s"))
        await sessions.entered.wait()
        call.cancel()
        await asyncio.wait_for(sessions.cancelled.wait(), 5)


async def test_a_watcher_that_leaves_ends_the_generator_it_watched(
    mesh: Runtime, mint: Mint, sessions: Sessions
) -> None:
    async with stub_at(mesh.address, mint(Role.VIEWER)) as stub:
        call = stub.WatchScreen(pb.WatchScreenRequest(session_id="s"))
        assert isinstance(await call.read(), pb.WatchScreenResponse)
        call.cancel()
        await asyncio.wait_for(sessions.cancelled.wait(), 5)
