from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

import grpc
import pytest

from infra.auth import Role
from infra.channels import dial, file_token
from infra.errors import Conflict, Precondition, Unavailable
from infra.mesh import Runtime, serving
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.execution.v1 import session_service_pb2 as pb
from skyagent.execution.v1 import session_service_pb2_grpc as rpc
from tests.infra.peer import SESSIONS, Sessions, service_of

Mint = Callable[[Role], str]
WHO = pb.ListSessionsRequest()


@pytest.fixture
async def mesh(sessions: Sessions, settings: Settings) -> AsyncGenerator[Runtime]:
    async with serving([service_of(sessions)], settings) as runtime:
        yield runtime


class Flaky:
    """Raises an error so many times, then works."""

    def __init__(self, times: int, error: Exception) -> None:
        self.calls = 0
        self._times = times
        self._error = error

    def __call__(self) -> None:
        self.calls += 1
        if self.calls <= self._times:
            raise self._error


async def test_a_read_is_tried_again_while_the_peer_is_unavailable(
    mesh: Runtime, mint: Mint, sessions: Sessions
) -> None:
    flaky = sessions.act = Flaky(2, Unavailable("BUSY", "come back"))
    async with dial(mesh.address, token=lambda: mint(Role.VIEWER), retry=[SESSIONS]) as channel:
        await rpc.SessionServiceStub(channel).ListSessions(WHO)
    assert flaky.calls == 3


async def test_retries_are_bounded(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    flaky = sessions.act = Flaky(100, Unavailable("BUSY", "come back"))
    async with dial(mesh.address, token=lambda: mint(Role.VIEWER), retry=[SESSIONS]) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await rpc.SessionServiceStub(channel).ListSessions(WHO)
    assert flaky.calls == 4


async def test_an_error_that_will_not_pass_is_not_retried(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    flaky = sessions.act = Flaky(100, Conflict("EPOCH_LOST", "somebody else owns it"))
    async with dial(mesh.address, token=lambda: mint(Role.VIEWER), retry=[SESSIONS]) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await rpc.SessionServiceStub(channel).ListSessions(WHO)
    assert flaky.calls == 1


async def test_a_channel_that_was_not_told_so_does_not_retry(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    flaky = sessions.act = Flaky(1, Unavailable("BUSY", "come back"))
    async with dial(mesh.address, token=lambda: mint(Role.VIEWER)) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await rpc.SessionServiceStub(channel).ListSessions(WHO)
    assert flaky.calls == 1


async def test_a_unary_call_has_the_channels_deadline(mesh: Runtime, mint: Mint, sessions: Sessions) -> None:
    async with dial(mesh.address, token=lambda: mint(Role.OPERATOR), deadline=0.1) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rpc.SessionServiceStub(channel).KillSession(pb.KillSessionRequest(session_id="s"))
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await sessions.cancelled.wait()


async def test_a_peer_that_is_not_there_fails_at_once_unless_asked_to_wait() -> None:
    async with dial("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rpc.SessionServiceStub(channel).ListSessions(WHO, timeout=20)
    assert isinstance(from_rpc_error(raised.value), Unavailable)


async def test_a_proxy_for_the_web_is_not_between_us(
    mesh: Runtime, mint: Mint, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with dial(mesh.address, token=lambda: mint(Role.VIEWER)) as channel:
        await rpc.SessionServiceStub(channel).ListSessions(WHO)


def test_a_token_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    read = file_token(path)
    assert read() == "first"
    path.write_text("second\n")
    os.utime(path, ns=(1, 1))
    assert read() == "second"


def test_a_token_file_that_is_not_there_is_told_with_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(Precondition, match="skyagent up"):
        file_token(tmp_path / "token")()
