"""Frames that wait for the writer of a stream."""

from __future__ import annotations

import asyncio

from google.protobuf.wrappers_pb2 import BytesValue

from infra.outbox import Outbox


def frame(number: int, size: int = 1) -> BytesValue:
    return BytesValue(value=bytes([number]) * size)


async def test_frames_that_are_ready_are_taken_together_and_in_order() -> None:
    outbox = Outbox[BytesValue]()
    frames = [frame(number) for number in range(5)]
    for each in frames:
        outbox.put(each)
    assert await outbox.take(3) == frames[:3]
    assert await outbox.take(3) == frames[3:]


async def test_the_reader_waits_for_a_frame() -> None:
    outbox = Outbox[BytesValue]()
    outbox.put(frame(1))
    await outbox.take(9)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(outbox.take(9))
        await asyncio.sleep(0)
        assert not reading.done()
        outbox.put(frame(2))
    assert reading.result() == [frame(2)]


async def test_what_does_not_fit_one_message_goes_by_the_next_and_the_largest_alone() -> None:
    outbox = Outbox[BytesValue]()
    sizes = [3_000_000, 600_000, 600_000, 300_000]
    for number, size in enumerate(sizes):
        outbox.put(frame(number, size))
    taken = [[len(each.value) for each in await outbox.take(9)] for _ in range(3)]
    assert taken == [[3_000_000], [600_000], [600_000, 300_000]]


async def test_after_the_end_everything_queued_is_taken_and_nothing_more_is_put() -> None:
    outbox = Outbox[BytesValue]()
    outbox.put(frame(1))
    outbox.close()
    outbox.put(frame(2))
    assert await outbox.take(9) == [frame(1)]
    assert await outbox.take(9) == []
