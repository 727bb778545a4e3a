"""The other end of the worker's stream: a real gRPC server whose side of the protocol a test speaks by hand.

It decides nothing by itself but this: it acknowledges what it reads, renews the leases that a heartbeat names (unless
told not to), and keeps the blobs that it is given.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import grpc
from google.protobuf.duration_pb2 import Duration

from infra.digest import digest_message, digest_of
from infra.errors import SkyError
from infra.status import DETAILS_KEY, to_status
from skyagent.execution.v1 import effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action, NoopAction
from skyagent.execution.v1.worker_service_pb2_grpc import (
    WorkerServiceServicer,
    add_WorkerServiceServicer_to_server,
)

PATIENCE = 20.0  # seconds until a test gives up waiting

Context = grpc.aio.ServicerContext[pb.ControlRequest, pb.ControlResponse]


class Link:
    """One Control stream as its server sees it."""

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.renewing = True
        self.lease_ttl = 30.0
        self.ended = asyncio.Event()
        self.order: list[str] = []
        self.messages = 0
        self._frames: defaultdict[str, asyncio.Queue[pb.ControlRequest]] = defaultdict(asyncio.Queue)
        self._outbox: asyncio.Queue[pb.ControlResponse | SkyError | None] = asyncio.Queue()
        self._heard = 0
        self._said = 0

    async def hello(self) -> pb.Hello:
        return (await self.next("hello")).hello

    def welcome(
        self,
        *,
        lease_ttl: float = 30.0,
        heartbeat: float = 5.0,
        ended_runs: Sequence[str] = (),
        node: str = "node-1",
        version: int = 1,
    ) -> None:
        self.lease_ttl = lease_ttl
        self.send(
            pb.ControlResponse(
                welcome=pb.Welcome(
                    session_id="session",
                    node_id=node,
                    lease_ttl=seconds(lease_ttl),
                    heartbeat_interval=seconds(heartbeat),
                    ended_runs=ended_runs,
                    protocol_version=version,
                )
            )
        )

    def send(self, frame: pb.ControlResponse) -> None:
        """Numbers the frame, unless it is numbered, and sends it."""
        self._said = frame.seq or self._said + 1
        frame.seq = self._said
        frame.ack = self._heard
        self._outbox.put_nowait(frame)

    def assign(self, assign: pb.Assign) -> pb.StepKey:
        self.send(pb.ControlResponse(assign=assign))
        return assign.key

    def cancel(self, key: pb.StepKey, *, reason: str = "enough", grace: float = 0) -> None:
        self.send(pb.ControlResponse(cancel=pb.Cancel(key=key, reason=reason, grace=seconds(grace))))

    def inspect(self, key: pb.StepKey) -> None:
        self.send(pb.ControlResponse(inspect=pb.Inspect(key=key)))

    def recorded(self, key: pb.StepKey) -> None:
        self.send(pb.ControlResponse(result_recorded=pb.ResultRecorded(key=key)))

    async def next(self, kind: str) -> pb.ControlRequest:
        """The next frame of a kind; others are kept for whoever asks for them."""
        async with asyncio.timeout(PATIENCE):
            return await self._frames[kind].get()

    async def applied(self) -> None:
        """Returns when a heartbeat acknowledges everything that was said until now."""
        said = self._said
        while (await self.next("heartbeat")).ack < said:
            pass

    async def result(self) -> pb.StepResult:
        return (await self.next("step_result")).step_result

    async def result_unless_gone(self) -> pb.StepResult | None:
        """The next result; None once the stream is over and every result that came by it was taken."""
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(self._frames["step_result"].get())
            ended = group.create_task(self.gone())
            await asyncio.wait([waiting, ended], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            ended.cancel()
        return None if waiting.cancelled() else waiting.result().step_result

    async def state(self) -> pb.StepState:
        return (await self.next("step_state")).step_state

    def waiting(self, kind: str) -> int:
        """How many frames of a kind came and were not asked for."""
        return self._frames[kind].qsize()

    def close(self, failure: SkyError | None = None) -> None:
        """Ends the stream, in order or with an error."""
        self._outbox.put_nowait(failure)

    async def gone(self) -> None:
        """Returns when the worker's side is over."""
        async with asyncio.timeout(PATIENCE):
            await self.ended.wait()

    async def listen(self, requests: AsyncIterator[pb.ControlRequest]) -> None:
        async for message in requests:
            self.messages += 1
            for frame in (message, *message.more):
                self._hear(frame)
        self.ended.set()

    def _hear(self, frame: pb.ControlRequest) -> None:
        assert frame.seq == self._heard + 1, f"frame {frame.seq} after {self._heard}"
        assert frame.ack <= self._said
        self._heard = frame.seq
        kind = cast("str", frame.WhichOneof("frame"))
        self.order.append(kind)
        self._frames[kind].put_nowait(frame)
        if kind == "heartbeat" and self.renewing:
            renewed = pb.Renewed(leases=frame.heartbeat.running, lease_ttl=seconds(self.lease_ttl))
            self.send(pb.ControlResponse(renewed=renewed))

    async def speak(self, context: Context) -> SkyError | None:
        """Says what the test says; returns how it wants the stream to end."""
        while isinstance(said := await self._outbox.get(), pb.ControlResponse):
            await context.write(said)
        return said


class ControlPlane(WorkerServiceServicer):
    """The server. `blobs` is its store; `stores` is cleared to make PutBlob fail."""

    def __init__(self) -> None:
        self.address = ""
        self.blobs: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.stores = True
        self.put_tried = asyncio.Event()
        self._links: asyncio.Queue[Link] = asyncio.Queue()

    async def accept(self) -> Link:
        """The next stream that a worker dials."""
        async with asyncio.timeout(PATIENCE):
            return await self._links.get()

    async def meet(self, *, lease_ttl: float = 30.0, heartbeat: float = 5.0) -> Link:
        """The next stream, with its Hello heard and answered."""
        link = await self.accept()
        await link.hello()
        link.welcome(lease_ttl=lease_ttl, heartbeat=heartbeat)
        return link

    async def Control(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.ControlRequest], context: Context
    ) -> None:
        link = Link({str(key): str(value) for key, value in context.invocation_metadata() or ()})
        self._links.put_nowait(link)
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(link.listen(request_iterator))
                failure = await link.speak(context)
                listening.cancel()
        finally:
            link.ended.set()
        if failure is not None:
            packed = (DETAILS_KEY, to_status(failure).SerializeToString())
            await context.abort(grpc.StatusCode[failure.code], failure.message, (packed,))

    async def PutBlob(  # type: ignore[override]
        self, request_iterator: AsyncIterator[pb.PutBlobRequest], context: Context
    ) -> pb.PutBlobResponse:
        first = await anext(request_iterator)
        self.put_tried.set()
        if not self.stores:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no disk")
        self.puts.append(first.ref.digest)
        if first.ref.digest not in self.blobs:
            data = b"".join([piece.data async for piece in request_iterator])
            assert digest_of(data) == first.ref.digest
            self.blobs[first.ref.digest] = data
        return pb.PutBlobResponse(ref=first.ref)

    async def GetBlob(self, request: pb.GetBlobRequest, context: Context) -> AsyncIterator[pb.GetBlobResponse]:
        if request.digest not in self.blobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such blob")
        yield pb.GetBlobResponse(data=self.blobs[request.digest])

    async def PushFrames(self, request_iterator: object, context: Context) -> None:  # type: ignore[override]
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "nobody watches")


@asynccontextmanager
async def control_plane(address: str = "127.0.0.1:0") -> AsyncGenerator[ControlPlane]:
    """A running control plane."""
    plane = ControlPlane()
    server = grpc.aio.server()
    add_WorkerServiceServicer_to_server(plane, server)
    port = server.add_insecure_port(address)
    plane.address = f"127.0.0.1:{port}"
    await server.start()
    try:
        yield plane
    finally:
        await server.stop(None)


def seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(value * 1e9))
    return duration


def ulid(number: int) -> str:
    """A valid ULID that a test can recognise."""
    return f"{number:026d}"


def step_key(step: int = 1, attempt: int = 1, *, run: int = 1, epoch: int = 1, generation: int = 0) -> pb.StepKey:
    return pb.StepKey(
        run_id=ulid(run),
        step_id=ulid(step),
        attempt=attempt,
        fence=pb.Fence(log_generation=generation, epoch=epoch),
    )


def noop(payload: bytes = b"", effect_class: effect_pb2.EffectClass.ValueType = effect_pb2.EFFECT_CLASS_ONCE) -> Action:
    return Action(effect_class=effect_class, noop=NoopAction(payload=payload))


def assign(key: pb.StepKey | None = None, action: Action | None = None) -> pb.Assign:
    action = action or noop()
    return pb.Assign(key=key or step_key(), action=action, action_digest=digest_message(action))
