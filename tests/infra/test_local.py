"""What a call within the process must have in common with one over the wire: each test is made of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from infra.auth import Caller, Role, acting_for, caller, mint_token, receive
from infra.channels import dial, file_token
from infra.clock import SystemClock
from infra.errors import NotFound
from infra.mesh import serving
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.execution.v1 import session_service_pb2 as pb
from skyagent.execution.v1 import session_service_pb2_grpc as rpc
from tests.infra.peer import Sessions, service_of

if TYPE_CHECKING:
    from skyagent.execution.v1.session_service_pb2_grpc import SessionServiceAsyncStub

WAYS = pytest.mark.parametrize("way", ["here", "by the wire"])


@asynccontextmanager
async def asked(way: str, sessions: Sessions, settings: Settings) -> AsyncGenerator[SessionServiceAsyncStub]:
    """The sessions as a loop of their own process reaches them, one way or the other."""
    async with serving([service_of(sessions)], settings) as runtime:
        if way == "here":
            yield rpc.SessionServiceStub(runtime.channel("sessions"))
        else:
            async with dial(runtime.address, token=file_token(settings.internal_token_path)) as channel:
                yield rpc.SessionServiceStub(channel)


async def refused(call: Callable[[], object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call()  # pyright: ignore[reportGeneralTypeIssues]  # a call of grpc.aio
    return raised.value


@WAYS
async def test_the_handler_sees_the_role_internal_and_the_tenant_acted_for(
    way: str, sessions: Sessions, settings: Settings
) -> None:
    async with asked(way, sessions, settings) as stub:
        with acting_for("acme"):
            seen = (await stub.ListSessions(pb.ListSessionsRequest())).sessions[0]
    assert (seen.session_id, seen.run_id, seen.kind) == ("control-plane", "acme", Role.INTERNAL)


@WAYS
async def test_who_called_before_is_who_calls_afterwards(way: str, sessions: Sessions, settings: Settings) -> None:
    async with asked(way, sessions, settings) as stub:
        with acting_for("acme"):
            await stub.ListSessions(pb.ListSessionsRequest())
        alone = (await stub.ListSessions(pb.ListSessionsRequest())).sessions[0]
    assert alone.run_id == "system"


@WAYS
async def test_an_error_comes_with_its_reason_and_fields(way: str, sessions: Sessions, settings: Settings) -> None:
    def fail() -> None:
        raise NotFound("RUN_NOT_FOUND", "run 'r' does not exist", run_id="r")

    sessions.act = fail
    async with asked(way, sessions, settings) as stub:
        error = from_rpc_error(await refused(lambda: stub.ListSessions(pb.ListSessionsRequest())))
    assert isinstance(error, NotFound)
    assert (error.reason, error.metadata) == ("RUN_NOT_FOUND", {"run_id": "r"})


@WAYS
async def test_a_bug_of_the_handler_is_told_without_its_traceback(
    way: str, sessions: Sessions, settings: Settings
) -> None:
    def break_down() -> None:
        raise TimeoutError("secret")

    sessions.act = break_down
    async with asked(way, sessions, settings) as stub:
        error = await refused(lambda: stub.ListSessions(pb.ListSessionsRequest()))
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (error.details() or "")


@WAYS
async def test_a_request_that_breaks_its_contract_is_refused(way: str, sessions: Sessions, settings: Settings) -> None:
    async with asked(way, sessions, settings) as stub:
        error = await refused(lambda: stub.ListSessions(pb.ListSessionsRequest(run_id="x" * 27)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@WAYS
async def test_a_deadline_ends_the_call_and_the_handler(way: str, sessions: Sessions, settings: Settings) -> None:
    async with asked(way, sessions, settings) as stub:
        error = await refused(lambda: stub.KillSession(pb.KillSessionRequest(session_id="s"), timeout=0.3))
        await asyncio.wait_for(sessions.cancelled.wait(), 5)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@WAYS
async def test_who_cancels_its_wait_cancels_the_handler(way: str, sessions: Sessions, settings: Settings) -> None:
    async def kill(stub: SessionServiceAsyncStub) -> None:
        await stub.KillSession(pb.KillSessionRequest(session_id="s"))

    async with asked(way, sessions, settings) as stub, asyncio.TaskGroup() as group:
        calling = group.create_task(kill(stub))
        await asyncio.wait_for(sessions.entered.wait(), 5)
        calling.cancel()
        await asyncio.wait_for(sessions.cancelled.wait(), 5)
    assert calling.cancelled()


async def test_a_call_with_a_token_of_its_own_is_judged_by_that(sessions: Sessions, settings: Settings) -> None:
    token = mint_token(settings, SystemClock(), subject="ada", tenant="acme", role=Role.VIEWER, ttl=60)
    async with asked("here", sessions, settings) as stub:
        own = (("authorization", f"Bearer {token}"),)
        seen = (await stub.ListSessions(pb.ListSessionsRequest(), metadata=own)).sessions[0]
    assert (seen.session_id, seen.kind) == ("ada", Role.VIEWER)


async def test_a_call_within_a_request_leaves_its_caller_alone(sessions: Sessions, settings: Settings) -> None:
    async with asked("here", sessions, settings) as stub:
        ada = Caller("ada", "acme", Role.VIEWER)
        receive(ada)
        seen = (await stub.ListSessions(pb.ListSessionsRequest())).sessions[0]
        assert (seen.run_id, caller()) == ("acme", ada)
