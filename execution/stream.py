"""One Control stream: frames numbered and acknowledged both ways, one task that reads and one that writes.

A stream carries no state that another could need: what it loses is told again from the worker's journal on the next.
So frames are numbered to notice a loss and to know what arrived, and none is ever replayed by number.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from grpc.aio import AioRpcError, StreamStreamCall

from infra.clock import Clock
from infra.errors import DeadlineExceeded, Internal, SkyError, Unavailable
from infra.outbox import MOST_FRAMES, Outbox
from infra.status import from_rpc_error
from skyagent.execution.v1 import worker_service_pb2 as pb

MANY_FRAMES = 2  # the protocol version from which on a message may carry several frames
MAX_WAITING = 4096  # frames for the writer; more means that the other side does not read
HANDSHAKE_DEADLINE = 10.0  # seconds from dialling to Welcome

Call = StreamStreamCall[pb.ControlRequest, pb.ControlResponse]


class ControlStream:
    """A call from Hello to its end."""

    def __init__(self, call: Call, clock: Clock) -> None:
        self._call = call
        self._clock = clock
        self._outbox: Outbox[pb.ControlRequest] = Outbox()
        self._most_frames = 1
        self._sent_seq = 0
        self._applied_seq = 0
        self._expired = False
        self._ended = asyncio.Event()

    async def greet(self, hello: pb.Hello) -> pb.Welcome:
        """Says Hello and waits for Welcome, which must be the first frame down. Raises what was answered instead."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._expire())
            answer = await self._handshake(pb.ControlRequest(hello=hello))
            watch.cancel()
        if isinstance(answer, SkyError):
            raise answer
        return answer

    def send(self, frame: pb.ControlRequest) -> None:
        """A frame that matters. When the other side does not read, the stream ends: the next one tells it again."""
        if len(self._outbox) < MAX_WAITING:
            self._outbox.put(frame)
        else:
            self.close()

    def offer(self, frame: pb.ControlRequest) -> None:
        """A frame that may be dropped, for instance progress."""
        if len(self._outbox) < MAX_WAITING // 2:
            self._outbox.put(frame)

    async def finish(self) -> None:
        """Says nothing more after what was said so far, and returns when the control plane has ended the stream."""
        self._outbox.close()
        await self._ended.wait()

    def close(self) -> None:
        """Ends it now."""
        self._call.cancel()

    async def converse(
        self, apply: Callable[[pb.ControlResponse], None], sent: Callable[[pb.ControlRequest], None]
    ) -> None:
        """Gives every new frame to `apply` until the stream ends. Raises what ended it; returns when it ended in order.

        `sent` is told of each own frame once it was handed to the network.
        """
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(sent))
            failure = await self._read(apply)
            self._ended.set()
            writer.cancel()
        if failure is not None:
            raise failure

    async def _handshake(self, hello: pb.ControlRequest) -> pb.Welcome | SkyError:
        try:
            with suppress(asyncio.InvalidStateError):  # the call has ended already: reading says by what
                await self._put([hello])
            frame = await self._call.read()
        except (AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError) as error:
            return self._ended_by(error)
        if not isinstance(frame, pb.ControlResponse) or frame.WhichOneof("frame") != "welcome":
            return Internal("NO_WELCOME", "the control plane did not answer Hello by Welcome; is it another service?")
        self._applied_seq = frame.seq
        self._most_frames = MOST_FRAMES if frame.welcome.protocol_version >= MANY_FRAMES else 1
        return frame.welcome

    async def _expire(self) -> None:
        await self._clock.sleep(HANDSHAKE_DEADLINE)
        self._expired = True
        self.close()

    async def _read(self, apply: Callable[[pb.ControlResponse], None]) -> SkyError | None:
        # No timeout around a read and no cancelled read but the last: each leaks in grpc.aio (grpc/grpc#43360).
        while True:
            try:
                frame = await self._call.read()
            except (AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError) as error:
                return self._ended_by(error)
            if not isinstance(frame, pb.ControlResponse):
                return None
            for each in (frame, *frame.more):
                if each.seq > self._applied_seq + 1:
                    self.close()
                    return Internal(
                        "FRAME_LOST", f"frame {self._applied_seq + 1} is missing: frame {each.seq} came instead"
                    )
                if each.seq > self._applied_seq:
                    apply(each)
                    self._applied_seq = each.seq

    async def _write(self, sent: Callable[[pb.ControlRequest], None]) -> None:
        try:
            while frames := await self._outbox.take(self._most_frames):
                await self._put(frames)
                for frame in frames:
                    sent(frame)
            await self._call.done_writing()
        except (AioRpcError, asyncio.InvalidStateError):
            # The call is over, and the reader learns why; cancelling it now could hide what it was ended with.
            return

    async def _put(self, frames: list[pb.ControlRequest]) -> None:
        for frame in frames:
            self._sent_seq += 1
            frame.seq, frame.ack = self._sent_seq, self._applied_seq
        frames[0].more.extend(frames[1:])
        await self._call.write(frames[0])

    def _ended_by(self, error: AioRpcError | asyncio.InvalidStateError | asyncio.CancelledError) -> SkyError:
        if isinstance(error, AioRpcError):
            return from_rpc_error(error)
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise error  # it is this task that is cancelled, not only the call
        if self._expired:
            return DeadlineExceeded("NO_WELCOME", f"no Welcome within {HANDSHAKE_DEADLINE:g} s of dialling")
        return Unavailable("STREAM_CLOSED", "the stream was closed on this side")
