"""Wakes through a real Valkey: runs and watchers hear of each other by it, and miss nothing when it dies."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from infra.clock import SystemClock
from infra.db import open_postgres
from infra.db.wakes import RedisWakes
from infra.errors import InvalidArgument
from infra.settings import OwnershipSettings, Settings
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import ControlPlane, control_plane, settings_in, worker
from tests.servers.valkey import Valkey, temporary_valkey

WATCHERS = 200
STEPS = 25


@pytest.fixture
def valkey() -> Iterator[Valkey]:
    with temporary_valkey() as server:
        yield server


@pytest.fixture
def settings(tmp_path: Path, new_database: Callable[[], str], valkey: Valkey) -> Settings:
    urls = {"database_url": SecretStr(new_database()), "redis_url": SecretStr(valkey.address)}
    return settings_in(tmp_path, node_id="owner", ownership=OwnershipSettings(), **urls)


@asynccontextmanager
async def onlooker(settings: Settings) -> AsyncGenerator[ControlPlane]:
    """Another node on the same database, which owns nothing."""
    async with control_plane(settings.model_copy(update={"node_id": "onlooker"}), services=()) as plane:
        yield plane


async def watched(plane: ControlPlane, run_id: str) -> list[int]:
    """Every seq that one tail sees until the run has ended."""
    seen = list[int]()
    async for event in plane.events(run_id):
        seen.append(event.seq)
        if event.body.HasField("run_finished"):
            return seen
    raise AssertionError("a tail never ends by itself")


@pytest.mark.timeout(120)
async def test_two_hundred_tails_in_another_node_see_a_run_without_a_gap_while_valkey_is_killed_and_comes_back(
    settings: Settings, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with onlooker(settings) as other, control_plane(settings) as plane, asyncio.TaskGroup() as group:
        run_id = await plane.start(steps=str(STEPS))
        tails = [group.create_task(watched(other, run_id)) for _ in range(WATCHERS)]
        async with worker(settings, plane.runtime.address):
            await other.until(run_id, "step_finished", within=30)
            await asyncio.to_thread(valkey.kill)
            await other.until_state(run_id, lambda state: state.counts.steps_succeeded >= STEPS // 2, within=60)
            await asyncio.to_thread(valkey.start)
            ended = await other.until_ended(run_id, within=60)
        assert (ended.phase, ended.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, STEPS)
        for tail in tails:
            assert await tail == [*range(1, ended.seq + 1)]
        await heard_again(plane, other)
    said = [record.message for record in caplog.records if record.message.startswith("wakes.")]
    assert said.count("wakes.away") <= 2  # each node once
    assert "wakes.back" in said


async def heard_again(plane: ControlPlane, other: ControlPlane) -> None:
    """A run that one node creates wakes the other by what Valkey carries, and not by a poll."""
    async with asyncio.timeout(20):
        wakes = other.journal.wakes()
        try:
            while True:  # whoever comes back is told to look at everything, and not at what
                waiting = asyncio.ensure_future(anext(wakes))
                run_id = await plane.start()
                if await waiting == run_id:
                    break
        finally:
            await wakes.aclose()


async def test_a_mesh_starts_and_works_without_its_valkey_and_says_so_once(
    settings: Settings, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    valkey.kill()
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        assert (await plane.until_ended(await plane.start(steps="3"))).phase == ev.RUN_PHASE_SUCCEEDED
        assert [record.message for record in caplog.records].count("wakes.away") == 1
        valkey.start()
        async with onlooker(settings) as other:
            await heard_again(plane, other)


async def test_a_valkey_that_stands_still_keeps_no_commit_waiting(new_database: Callable[[], str]) -> None:
    clock = SystemClock()
    asked = list[asyncio.StreamWriter]()
    silent = await asyncio.start_server(lambda _reader, writer: asked.append(writer), "127.0.0.1", 0)
    (port,) = [listening.getsockname()[1] for listening in silent.sockets]
    wakes = RedisWakes(f"redis://127.0.0.1:{port}", "test", "me")
    publishing = asyncio.ensure_future(wakes.publish())
    try:
        async with silent, open_postgres(new_database(), who="me", wakes=wakes) as database:
            before = clock.monotonic()
            for _ in range(20):
                await database.transact(lambda _connection: None, topics=lambda _: ("e1",))
            assert clock.monotonic() - before < 20 * 0.5  # far from a second's patience each
    finally:
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)
        for writer in asked:
            writer.close()


async def test_an_address_of_no_redis_is_refused_by_name() -> None:
    with pytest.raises(InvalidArgument, match="SKYAGENT_REDIS_URL"):
        RedisWakes("http://somewhere", "test", "me")


async def test_a_redis_without_a_postgres_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="SKYAGENT_DATABASE_URL"):
        async with control_plane(settings_in(tmp_path, redis_url=SecretStr("redis://127.0.0.1:1")), services=()):
            pass
