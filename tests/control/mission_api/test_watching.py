from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from control.journal import shared_journal
from control.mission_api.service import SERVICE
from control.mission_api.watching import HEARTBEAT, Watch
from infra.clock import ManualClock
from infra.errors import NotFound
from infra.mesh import serving
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.mission.v1 import mission_service_pb2 as missions_pb
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as pb
from tests.control.meshed import CallingAs
from tests.control.mission_api.world import Client, World, client_of, login


def _watch(world: World, run_id: str, after_seq: int = 0) -> AsyncIterator[pb.WatchRunResponse]:
    return aiter(world.client.runs.WatchRun(pb.WatchRunRequest(run_id=run_id, after_seq=after_seq)))


async def test_a_watcher_sees_what_was_and_what_comes_and_is_told_of_the_end(world: World) -> None:
    run_id = (await world.create()).run_id
    watcher = _watch(world, run_id)
    assert (await anext(watcher)).event.body.HasField("run_created")
    await world.finish(await world.owned(run_id))
    rest = [item async for item in watcher]
    assert [item.event.seq for item in rest[:-1]] == [2, 3]
    assert rest[-1].end == pb.EndOfRun(phase=ev.RUN_PHASE_SUCCEEDED, head_seq=3)


async def test_a_watcher_that_comes_back_misses_nothing_and_sees_nothing_twice(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.finish(await world.owned(run_id))
    items = [item async for item in _watch(world, run_id, after_seq=1)]
    assert [item.event.seq for item in items[:-1]] == [2, 3]
    only_end = [item async for item in _watch(world, run_id, after_seq=3)]
    assert [item.WhichOneof("item") for item in only_end] == ["end"]


async def test_results_that_come_after_the_end_are_shown_before_the_watcher_is_sent_away(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    await world.finish(ledger)
    await ledger.commit([ev.EventBody(late_result=ev.LateResult(step_id=run_id, attempt=1))])
    items = [item async for item in _watch(world, run_id, after_seq=2)]
    assert [item.WhichOneof("item") for item in items] == ["event", "event", "end"]
    assert items[-1].end.head_seq == 4


async def test_a_hundred_watchers_see_the_same(world: World) -> None:
    run_id = (await world.create()).run_id
    watchers = [asyncio.create_task(_all(_watch(world, run_id))) for _ in range(100)]
    await world.finish(await world.owned(run_id))
    seen = await asyncio.gather(*watchers)
    assert len({tuple(hashes) for hashes in seen}) == 1
    assert len(seen[0]) == 3


async def _all(watcher: AsyncIterator[pb.WatchRunResponse]) -> list[str]:
    return [item.event.hash async for item in watcher if item.HasField("event")]


async def test_another_tenant_watches_nothing(world: World, stranger: Client) -> None:
    run_id = (await world.create()).run_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(stranger.runs.WatchRun(pb.WatchRunRequest(run_id=run_id))))
    assert isinstance(from_rpc_error(caught.value), NotFound)


async def test_a_silent_stream_says_that_it_is_alive(world: World) -> None:
    run_id = (await world.create()).run_id
    clock = ManualClock()
    sent: asyncio.Queue[pb.WatchRunResponse] = asyncio.Queue()
    journal = await world.runtime.shared(shared_journal)
    watch = Watch(journal, clock, asyncio.Event(), run_id, "default", after_seq=0)
    watching = asyncio.create_task(watch.send_all(sent.put))
    assert (await sent.get()).event.seq == 1
    for _ in range(2):
        await clock.until_sleeping()
        await clock.advance(HEARTBEAT)
    assert (await sent.get()).heartbeat == pb.Heartbeat(head_seq=1)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_a_server_that_goes_away_says_so_first(settings: Settings, calling_as: CallingAs) -> None:
    async with serving([SERVICE], settings) as runtime:
        client = client_of(calling_as, runtime)
        run_id = (await client.missions.CreateMission(missions_pb.CreateMissionRequest(spec=login()))).run_id
        watcher = aiter(client.runs.WatchRun(pb.WatchRunRequest(run_id=run_id)))
        assert (await anext(watcher)).event.seq == 1
    items = [item async for item in watcher]
    assert [item.WhichOneof("item") for item in items] == ["reconnect"]


async def test_a_watcher_that_leaves_leaves_nothing_behind(world: World) -> None:
    run_id = (await world.create()).run_id
    before = len(asyncio.all_tasks())
    call = world.client.runs.WatchRun(pb.WatchRunRequest(run_id=run_id))
    assert (await anext(aiter(call))).event.seq == 1
    call.cancel()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > before:
            await world.client.runs.ListRuns(pb.ListRunsRequest())
