import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest

from control.journal import EventDraft, StoredEvent
from control.journal import tail as tail_module
from control.journal.hub import BUFFERED_EVENTS, Hub
from tests.control.journal.world import RESULT, World


async def take(tail: AsyncGenerator[StoredEvent], count: int) -> list[int]:
    async with asyncio.timeout(20):
        return [(await anext(tail)).seq for _ in range(count)]


@pytest.fixture(autouse=True)
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll would hide a wake that never came."""
    monkeypatch.setattr(tail_module, "POLL_SECONDS", 3600.0)


def tail_from(hub: Hub, world: World, run_id: str) -> AsyncGenerator[StoredEvent]:
    """A tail that hears of new events from another hub than the journal tells."""

    async def page(seen: int) -> tuple[StoredEvent, ...]:
        return await world.journal.read(run_id, after_seq=seen, limit=tail_module.PAGE)

    return tail_module.tail(hub, page, run_id, 0)


async def test_a_tail_gives_what_was_and_then_what_comes(world: World) -> None:
    run = await world.owned()
    tail = world.journal.tail(run.run_id)
    assert await take(tail, 1) == [1]
    coming = asyncio.ensure_future(take(tail, 2))
    await asyncio.sleep(0)
    await world.journal.append(world.result(run, RESULT, RESULT))
    assert await coming == [2, 3]
    await tail.aclose()


async def test_a_tail_resumes_after_any_event(world: World) -> None:
    run = await world.owned()
    await world.journal.append(world.result(run, *[RESULT] * 9))
    for seq in range(11):
        tail = world.journal.tail(run.run_id, after_seq=seq)
        assert await take(tail, 10 - seq) == list(range(seq + 1, 11))
        await tail.aclose()


async def test_what_follows_on_what_was_read_is_not_read_again() -> None:
    hub, reads = Hub(), list[int]()
    events = [StoredEvent("R", seq, "A", 1, 7, 0, b"", b"", b"", b"") for seq in (1, 2, 3)]

    async def page(seen: int) -> tuple[StoredEvent, ...]:
        reads.append(seen)
        hub.publish(events[:2])  # the first of them is in the page, too
        return tuple(events[:1])

    tail = tail_module.tail(hub, page, "R", 0)
    assert await take(tail, 2) == [1, 2]
    hub.publish(events[2:])
    assert await take(tail, 1) == [3]
    await tail.aclose()
    assert reads == [0]


async def test_a_tail_of_committed_events_is_what_the_database_has(world: World) -> None:
    run = await world.owned()
    tail = world.journal.tail(run.run_id, after_seq=1)
    reading = asyncio.ensure_future(anext(tail))
    await asyncio.sleep(0)
    await world.journal.append(world.result(run))
    assert (await reading,) == await world.journal.read(run.run_id, after_seq=1)
    await tail.aclose()


async def test_tails_have_no_gap_while_many_runs_are_written_at_once(world: World) -> None:
    runs = [await world.owned() for _ in range(8)]
    appends = 60

    async def write(n: int) -> None:
        for i in range(appends):
            await world.journal.append(replace(world.result(runs[n], RESULT, RESULT), expect_seq=1 + 2 * i))

    async def follow(n: int, delay: int) -> list[int]:
        tail = world.journal.tail(runs[n].run_id)
        seen: list[int] = []
        async for event in tail:
            seen.append(event.seq)
            for _ in range(delay):
                await asyncio.sleep(0)
            if event.seq == 1 + 2 * appends:
                break
        await tail.aclose()
        return seen

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        followers = [group.create_task(follow(n, delay)) for n in range(8) for delay in (0, 7)]
        for n in range(8):
            group.create_task(write(n))
    assert all(follower.result() == list(range(1, 2 + 2 * appends)) for follower in followers)


async def test_a_reader_slower_than_its_buffer_misses_nothing(world: World) -> None:
    run = await world.owned()
    tail = world.journal.tail(run.run_id)
    assert await take(tail, 1) == [1]
    waiting = asyncio.ensure_future(take(tail, 1))
    await asyncio.sleep(0)
    seq, total = 1, BUFFERED_EVENTS * 3
    while seq < total:
        seq = (await world.journal.append(replace(world.result(run, *[RESULT] * 50), expect_seq=seq))).seq
    assert await waiting + await take(tail, seq - 2) == list(range(2, seq + 1))
    await tail.aclose()


async def test_a_lost_wake_costs_a_poll_and_no_event(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "POLL_SECONDS", 0.05)
    run = await world.owned()
    tail = tail_from(Hub(), world, run.run_id)
    assert await take(tail, 1) == [1]
    coming = asyncio.ensure_future(take(tail, 1))
    await asyncio.sleep(0)
    await world.journal.append(world.result(run))
    assert await coming == [2]
    await tail.aclose()


async def test_a_tail_of_a_cancelled_waiters_append_still_comes(world: World) -> None:
    run = await world.owned()
    tail = world.journal.tail(run.run_id, after_seq=1)
    coming = asyncio.ensure_future(take(tail, 1))
    async with world.stalled():
        waiter = asyncio.ensure_future(world.journal.append(world.result(run)))
        await asyncio.sleep(0)
        waiter.cancel()
    assert await coming == [2]
    await tail.aclose()


async def test_a_closed_tail_leaves_nothing_behind(world: World) -> None:
    run = await world.owned()
    hub = Hub()
    tail = tail_from(hub, world, run.run_id)
    await anext(tail)
    assert hub.has_tail(run.run_id)
    await tail.aclose()
    assert not hub.has_tail(run.run_id)


async def test_a_tail_reads_a_long_past_in_pages(world: World) -> None:
    new = replace(world.new_run(), events=tuple(EventDraft(1, b"") for _ in range(3 * tail_module.PAGE + 1)))
    await world.journal.create_run(new)
    tail = world.journal.tail(new.run_id)
    assert await take(tail, len(new.events)) == list(range(1, len(new.events) + 1))
    await tail.aclose()
