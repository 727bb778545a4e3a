"""One stream, below everything that is said on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from execution import stream as stream_module
from execution.stream import ControlStream
from infra.backoff import Backoff
from infra.channels import dial
from infra.clock import Clock, ManualClock, SystemClock
from infra.errors import DeadlineExceeded, Denied, Internal, Precondition, SkyError, Unavailable
from infra.ids import seeded_ids
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.execution.control_plane import ControlPlane, Link, control_plane, step_key

HELLO = pb.Hello(worker_id="noop-1", protocol_version=1)


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


@dataclass
class Line:
    """Both ends of a stream whose Hello is on its way."""

    stream: ControlStream
    greeting: asyncio.Task[pb.Welcome | SkyError]
    link: Link
    heard: list[pb.ControlResponse] = field(default_factory=list[pb.ControlResponse])
    sent: list[pb.ControlRequest] = field(default_factory=list[pb.ControlRequest])

    async def welcomed(self, version: int = 1) -> None:
        self.link.welcome(version=version)
        assert isinstance(await self.greeting, pb.Welcome)

    async def converse(self) -> None:
        await self.stream.converse(self.heard.append, self.sent.append)


async def greeted(stream: ControlStream) -> pb.Welcome | SkyError:
    try:
        return await stream.greet(HELLO)
    except SkyError as failure:
        return failure


@asynccontextmanager
async def line(plane: ControlPlane, clock: Clock | None = None) -> AsyncGenerator[Line]:
    async with dial(plane.address) as channel, asyncio.TaskGroup() as group:
        stream = ControlStream(WorkerServiceStub(channel).Control(), clock or SystemClock())
        greeting = group.create_task(greeted(stream))
        yield Line(stream, greeting, await plane.accept())
        stream.close()


def inspect(seq: int = 0) -> pb.ControlResponse:
    return pb.ControlResponse(seq=seq, inspect=pb.Inspect(key=step_key()))


def credit(steps: int = 1) -> pb.ControlRequest:
    return pb.ControlRequest(credit=pb.Credit(steps=steps))


async def test_frames_are_numbered_from_hello_and_acknowledge_what_was_applied(plane: ControlPlane) -> None:
    async with line(plane) as on:
        assert (await on.link.next("hello")).seq == 1
        await on.welcomed()
        on.stream.send(credit())
        async with asyncio.TaskGroup() as group:
            group.create_task(on.converse())
            first = await on.link.next("credit")
            assert (first.seq, first.ack) == (2, 1)
            on.link.send(inspect())
            on.link.send(inspect())
            on.link.close()
        assert [frame.seq for frame in on.heard] == [2, 3]
        assert on.sent == [first]


async def test_a_frame_that_comes_twice_is_applied_once(plane: ControlPlane) -> None:
    async with line(plane) as on:
        await on.welcomed()
        for seq in (2, 2, 1, 3):
            on.link.send(inspect(seq))
        on.link.close()
        await on.converse()
        assert [frame.seq for frame in on.heard] == [2, 3]


async def test_a_frame_that_is_missing_ends_the_stream(plane: ControlPlane) -> None:
    async with line(plane) as on:
        await on.welcomed()
        on.link.send(inspect(2))
        on.link.send(inspect(4))
        with pytest.raises(Internal, match=r"frame 3 is missing.*\[FRAME_LOST\]"):
            await on.converse()
        assert [frame.seq for frame in on.heard] == [2]
        await on.link.gone()


@pytest.mark.parametrize(("version", "messages"), [(1, 4), (2, 2)])
async def test_frames_that_are_ready_together_travel_together_if_the_other_side_knows_that(
    plane: ControlPlane, version: int, messages: int
) -> None:
    async with line(plane) as on:
        await on.welcomed(version)
        for steps in (1, 2, 3):
            on.stream.send(credit(steps))
        async with asyncio.TaskGroup() as group:
            group.create_task(on.converse())
            heard = [await on.link.next("credit") for _ in range(3)]
            on.link.close()
    assert [frame.seq for frame in heard] == [2, 3, 4]
    assert [frame.credit.steps for frame in on.sent] == [1, 2, 3]
    assert on.link.messages == messages


async def test_frames_that_come_together_are_applied_in_order_and_each_once(plane: ControlPlane) -> None:
    async with line(plane) as on:
        await on.welcomed(version=2)
        together = inspect(2)
        together.more.extend([inspect(2), inspect(3)])
        on.link.send(together)
        on.link.send(inspect(4))
        on.link.close()
        await on.converse()
        assert [frame.seq for frame in on.heard] == [2, 3, 4]


async def test_a_frame_that_is_missing_among_others_ends_the_stream(plane: ControlPlane) -> None:
    async with line(plane) as on:
        await on.welcomed(version=2)
        together = inspect(2)
        together.more.append(inspect(4))
        on.link.send(together)
        with pytest.raises(Internal, match=r"frame 3 is missing.*\[FRAME_LOST\]"):
            await on.converse()
        assert [frame.seq for frame in on.heard] == [2]


async def test_a_first_frame_that_is_no_welcome_is_refused(plane: ControlPlane) -> None:
    async with line(plane) as on:
        on.link.send(inspect())
        answer = await on.greeting
        assert isinstance(answer, Internal)
        assert answer.reason == "NO_WELCOME"


async def test_a_control_plane_that_never_answers_is_given_up(plane: ControlPlane) -> None:
    clock = ManualClock()
    async with line(plane, clock) as on:
        await on.link.next("hello")
        await clock.until_sleeping()
        await clock.advance(stream_module.HANDSHAKE_DEADLINE)
        assert isinstance(await on.greeting, DeadlineExceeded)


async def test_nobody_listening_is_told_at_once() -> None:
    async with control_plane() as plane:
        address = plane.address
    async with dial(address) as channel:
        stream = ControlStream(WorkerServiceStub(channel).Control(), SystemClock())
        with pytest.raises(Unavailable):
            await stream.greet(HELLO)


async def test_the_answer_to_hello_may_be_a_refusal(plane: ControlPlane) -> None:
    async with line(plane) as on:
        on.link.close(Precondition("TOO_OLD", "update the worker"))
        answer = await on.greeting
        assert isinstance(answer, Precondition)
        assert (answer.reason, answer.message) == ("TOO_OLD", "update the worker")


async def test_what_ends_a_stream_is_raised(plane: ControlPlane) -> None:
    async with line(plane) as on:
        await on.welcomed()
        on.link.send(inspect())
        on.link.close(Unavailable("RESTARTING", "back in a moment"))
        with pytest.raises(Unavailable, match="back in a moment"):
            await on.converse()
        assert len(on.heard) == 1


async def test_closing_it_here_ends_it_here(plane: ControlPlane) -> None:
    async with line(plane) as on:
        await on.welcomed()
        on.stream.close()
        with pytest.raises(Unavailable) as ended:
            await on.converse()
        assert ended.value.reason == "STREAM_CLOSED"


async def test_cancelling_who_reads_is_a_cancellation(plane: ControlPlane) -> None:
    async with line(plane) as on, asyncio.TaskGroup() as group:
        await on.welcomed()
        on.stream.send(credit())
        reading = group.create_task(on.converse())
        await on.link.next("credit")
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled()


async def test_finishing_sends_everything_first_and_waits_for_the_other_side(plane: ControlPlane) -> None:
    async with line(plane) as on, asyncio.TaskGroup() as group:
        await on.welcomed()
        group.create_task(on.converse())
        for steps in (1, 2, 3):
            on.stream.send(credit(steps))
        finishing = group.create_task(on.stream.finish())
        assert [(await on.link.next("credit")).credit.steps for _ in range(3)] == [1, 2, 3]
        await on.link.gone()
        assert not finishing.done()
        on.link.close()
        await finishing


async def test_a_control_plane_that_does_not_read_loses_its_stream(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_WAITING", 4)
    async with line(plane) as on:
        await on.welcomed()
        for _ in range(5):
            on.stream.send(credit())
        with pytest.raises(Unavailable):
            await on.converse()


async def test_what_nobody_misses_is_dropped_before_it_crowds_out_the_rest(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_module, "MAX_WAITING", 4)
    async with line(plane) as on, asyncio.TaskGroup() as group:
        await on.welcomed()
        for steps in (1, 2, 3):
            on.stream.offer(credit(steps))
        on.stream.send(credit(9))
        group.create_task(on.converse())
        assert [(await on.link.next("credit")).credit.steps for _ in range(3)] == [1, 2, 9]
        on.link.close()


async def test_waiting_to_dial_doubles_with_jitter_up_to_a_bound_and_starts_anew() -> None:
    clock = ManualClock()
    backoff = Backoff(clock, seeded_ids(1, clock))

    async def waited() -> float:
        before = clock.monotonic()
        async with asyncio.TaskGroup() as group:
            group.create_task(backoff.wait())
            await clock.until_sleeping()
            await clock.advance(_next_wake(clock) - before)
        return clock.monotonic() - before

    waits = [await waited() for _ in range(10)]
    for nth, wait in enumerate(waits):
        longest = min(Backoff.LONGEST, Backoff.FIRST * 2**nth)
        assert longest / 2 <= wait <= longest
    assert len({wait / Backoff.LONGEST for wait in waits[-3:]}) == 3
    backoff.forget()
    assert await waited() <= Backoff.FIRST


def _next_wake(clock: ManualClock) -> float:
    return clock._sleepers[0][0]  # pyright: ignore[reportPrivateUsage]


async def test_what_ended_a_call_before_hello_could_be_said_is_told(plane: ControlPlane) -> None:
    async with dial(plane.address) as channel:
        call = WorkerServiceStub(channel).Control()
        (await plane.accept()).close(Denied("NOT_THIS_WORKER", "the token is of another"))
        await call.code()
        with pytest.raises(Denied, match="the token is of another"):
            await ControlStream(call, SystemClock()).greet(HELLO)
