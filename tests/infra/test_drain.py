from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from infra.auth import Role
from infra.clock import SystemClock
from infra.errors import Unavailable
from infra.processes import end_group, process_id
from infra.settings import Settings, environment
from infra.status import from_rpc_error
from skyagent.execution.v1 import session_service_pb2 as pb
from tests.infra.peer import stub_at

Mint = Callable[[Role], str]
ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def drainee(settings: Settings, what: str) -> AsyncGenerator[tuple[asyncio.subprocess.Process, str]]:
    """A serving process and its address; gone when the block ends, whatever happened."""
    env = {**environment(), "SKYAGENT_DATA_DIR": str(settings.data_dir), "SKYAGENT_LISTEN": "127.0.0.1:0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.infra.drainee", what),
        cwd=ROOT,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    leader = process_id(process.pid)
    assert leader
    assert process.stdout
    try:
        yield process, (await process.stdout.readline()).decode().strip()
    finally:
        await end_group(leader, SystemClock(), 0)
        await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_loops_then_services_and_exits_with_zero(
    settings: Settings, number: signal.Signals
) -> None:
    async with drainee(settings, "wait") as (process, _):
        process.send_signal(number)
        said, _ = await process.communicate()
    assert process.returncode == 0
    assert said.decode().splitlines() == ["loop ended, draining True", "closed"]


async def test_a_call_in_flight_may_end_and_a_stream_is_told_to_connect_again(settings: Settings, mint: Mint) -> None:
    async with drainee(settings, "wait") as (process, address), stub_at(address, mint(Role.OPERATOR)) as stub:
        watch = stub.WatchScreen(pb.WatchScreenRequest(session_id="s"))
        assert isinstance(await watch.read(), pb.WatchScreenResponse)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await watch.read()
        await process.wait()
    error = from_rpc_error(raised.value)
    assert isinstance(error, Unavailable)
    assert (error.reason, error.retry_after) == ("DRAINING", 1.0)


async def test_a_broken_loop_ends_the_process_with_its_error(settings: Settings) -> None:
    async with drainee(settings, "crash") as (process, _):
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.decode().splitlines()[-1] == "RuntimeError: the loop broke"
