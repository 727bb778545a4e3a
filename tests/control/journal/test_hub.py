"""Wakes and events on their way: each is taken once, and nothing is kept for those who left."""

import asyncio

import pytest

from control.journal import StoredEvent
from control.journal.hub import BUFFERED_EVENTS, Hub


def event(seq: int, run_id: str = "R") -> StoredEvent:
    return StoredEvent(run_id, seq, "A", 1, 7, 0, b"", b"", b"", b"")


async def test_what_was_taken_is_not_given_again() -> None:
    hub = Hub()
    with hub.subscribed("R") as subscription, hub.listening() as listener:
        for seq in (1, 2):
            hub.publish([event(seq)])
            hub.wake("R")
            assert [taken.seq for taken in await subscription.take()] == [seq]
            assert await listener.take() == ("R",)
            for more in (subscription, listener):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0):
                        await more.take()


async def test_a_run_that_is_woken_twice_is_named_once_and_in_order() -> None:
    hub = Hub()
    with hub.listening() as listener:
        for run_id in ("B", "A", "B"):
            hub.wake(run_id)
        assert await listener.take() == ("B", "A")


async def test_a_reader_that_is_too_slow_loses_the_oldest() -> None:
    hub = Hub()
    with hub.subscribed("R") as subscription:
        hub.publish([event(seq) for seq in range(BUFFERED_EVENTS + 3)])
        taken = await subscription.take()
        assert (taken[0].seq, len(taken)) == (3, BUFFERED_EVENTS)


async def test_events_reach_the_readers_of_their_run_alone() -> None:
    hub = Hub()
    with hub.subscribed("R") as one, hub.subscribed("R") as other, hub.subscribed("S") as elsewhere:
        hub.publish([event(1)])
        assert len(await one.take()) == len(await other.take()) == 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await elsewhere.take()


async def test_nothing_is_kept_for_whoever_has_left() -> None:
    hub = Hub()
    with hub.subscribed("R"):
        with hub.subscribed("R"):
            pass
        assert hub.has_tail("R")
    assert not hub.has_tail("R")
    with hub.listening() as listener:
        pass
    hub.wake("R")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await listener.take()
