"""WorkerService: the streams that workers dial, and the evidence they store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Protocol

import grpc

from control.orchestrator.links import Key, LocalLink, Standing, WorkerLink, WorkerLinks
from control.orchestrator.owner import Renewing
from infra.auth import caller
from infra.blobs import BlobStore
from infra.clock import Clock
from infra.errors import (
    Conflict,
    Denied,
    InvalidArgument,
    Precondition,
    SkyError,
    Unavailable,
    Unimplemented,
    Violation,
)
from infra.ids import Ids
from infra.log import event_logger
from infra.settings import LeaseSettings
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.execution.v1 import worker_service_pb2_grpc as rpc

PROTOCOL_VERSION = 2

log = event_logger(__name__)


class Runs(Protocol):
    """What the streams tell the owners of runs."""

    async def take(self, hello: wire.Hello) -> int:
        """The generation of a worker's new stream, which overtakes all earlier ones."""
        ...

    async def result(self, link: LocalLink, result: wire.StepResult) -> None:
        """A worker says what came of an attempt."""
        ...

    async def state(self, link: LocalLink, state: wire.StepState) -> None:
        """A worker says what its journal knows of an attempt."""
        ...

    def worker_changed(self) -> None:
        """A worker came, is about to go, or went."""
        ...

    def left(self, link: LocalLink) -> None:
        """A worker's stream has ended."""
        ...

    def renew(self, link: LocalLink, keys: list[wire.StepKey], answer: Renewing) -> None:
        """A worker's heartbeat names attempts: `answer` is called once, in the order of the heartbeats."""
        ...

    async def ended(self, run_ids: set[str]) -> list[str]:
        """Those of the runs that are over."""
        ...


class WorkerServicer(rpc.WorkerServiceServicer):
    """Greets workers, keeps their streams, and passes on what they say."""

    def __init__(
        self,
        links: WorkerLinks,
        runs: Runs,
        blobs: BlobStore,
        clock: Clock,
        ids: Ids,
        lease: LeaseSettings,
        node_id: str,
    ) -> None:
        self._links, self._runs, self._blobs = links, runs, blobs
        self._clock, self._ids, self._lease, self._node_id = clock, ids, lease, node_id

    async def Control(  # pyright: ignore[reportIncompatibleMethodOverride] -- grpc.aio takes a coroutine that writes, too
        self,
        request_iterator: AsyncIterator[wire.ControlRequest],
        context: grpc.aio.ServicerContext[wire.ControlRequest, wire.ControlResponse],
    ) -> None:
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or not first.HasField("hello"):
            raise Precondition("HELLO_EXPECTED", "the first frame of a worker's stream must be hello")
        link = await self._greet(first)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(link, frames))
                await self._write(link, context)
        finally:
            self._leave(link)

    async def PutBlob(
        self,
        request_iterator: AsyncIterator[wire.PutBlobRequest],
        context: grpc.aio.ServicerContext[wire.PutBlobRequest, wire.PutBlobResponse],
    ) -> wire.PutBlobResponse:
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or not first.HasField("ref"):
            raise InvalidArgument(Violation("ref", "the first message must say what is being stored"))
        ref = first.ref
        if not await self._blobs.exists(ref.digest):
            await self._blobs.put(_bytes(first, frames), expected=ref.digest)
        return wire.PutBlobResponse(ref=ref)

    async def PushFrames(
        self,
        request_iterator: AsyncIterator[wire.PushFramesRequest],
        context: grpc.aio.ServicerContext[wire.PushFramesRequest, wire.PushFramesResponse],
    ) -> AsyncIterator[wire.PushFramesResponse]:
        raise Unimplemented("NO_LIVE_VIEW", "this control plane shows no live screens: send no frames")
        yield  # makes it a stream

    async def GetBlob(
        self,
        request: wire.GetBlobRequest,
        context: grpc.aio.ServicerContext[wire.GetBlobRequest, wire.GetBlobResponse],
    ) -> AsyncIterator[wire.GetBlobResponse]:
        async for piece in self._blobs.stream(request.digest):
            yield wire.GetBlobResponse(data=piece)

    async def _greet(self, first: wire.ControlRequest) -> LocalLink:
        hello = first.hello
        _require_own_name(hello.worker_id)
        generation = await self._runs.take(hello)
        link = LocalLink(hello, self._ids.ulid(), self._clock.monotonic(), generation, applied_seq=first.seq)
        link.standing = {Key.of(held.key): Standing.HELD for held in hello.held}
        runs = {held.key.run_id for held in hello.held} | set(hello.capabilities.resident_runs)
        welcome = wire.Welcome(session_id=link.session_id, node_id=self._node_id)
        welcome.protocol_version = min(hello.protocol_version, PROTOCOL_VERSION)
        welcome.ended_runs.extend(await self._runs.ended(runs))
        welcome.heartbeat_interval.FromMilliseconds(int(self._lease.heartbeat * 1000))
        welcome.lease_ttl.FromMilliseconds(int(self._lease.ttl * 1000))
        link.send(wire.ControlResponse(welcome=welcome))
        if not self._links.join(link):
            raise _superseded(link)
        log.info("worker.connected", worker_id=link.worker_id, kind=link.kind, held=len(hello.held))
        self._runs.worker_changed()
        return link

    def _leave(self, link: LocalLink) -> None:
        if self._links.leave(link, self._clock.monotonic()):
            log.info("worker.disconnected", worker_id=link.worker_id)
        self._runs.left(link)
        self._runs.worker_changed()

    async def _write(
        self, link: LocalLink, context: grpc.aio.ServicerContext[wire.ControlRequest, wire.ControlResponse]
    ) -> None:
        most = 1  # Welcome travels alone: it says how many may travel together
        while frames := await link.outbox.take(most):
            frames[0].more.extend(frames[1:])
            await context.write(frames[0])
            most = link.most_frames
        if self._links.by_id.get(link.worker_id) is not link:
            raise _superseded(link)

    async def _read(self, link: LocalLink, frames: AsyncIterator[wire.ControlRequest]) -> None:
        async for request in frames:
            for frame in (request, *request.more):
                await self._handle(link, frame)
                link.applied_seq = frame.seq
        link.close()

    async def _handle(self, link: LocalLink, request: wire.ControlRequest) -> None:
        match request.WhichOneof("frame"):
            case "step_result":
                await self._result(link, request.step_result)
            case "credit":
                link.credits += request.credit.steps
                self._links.room_made()
            case "heartbeat":
                self._runs.renew(link, list(request.heartbeat.running), partial(self._renewed, link))
            case "step_state":
                await self._runs.state(link, request.step_state)
            case "inventory":
                link.inventory = request.inventory
            case "goodbye":
                link.leaving = True
                self._runs.worker_changed()
            case _:
                pass

    def _renewed(self, link: LocalLink, leases: Sequence[wire.StepKey], unanswered: Sequence[wire.StepKey]) -> None:
        renewed = wire.Renewed(leases=leases, unanswered=unanswered)
        renewed.lease_ttl.FromMilliseconds(int(self._lease.ttl * 1000))
        link.send(wire.ControlResponse(renewed=renewed))

    async def _result(self, link: LocalLink, result: wire.StepResult) -> None:
        try:
            await self._runs.result(link, result)
        except SkyError as error:  # whatever it was, the worker keeps the outcome: it dials again and reports again
            raise Unavailable("RESULT_NOT_TAKEN", f"a result could not be taken: {error}") from error


def _superseded(link: WorkerLink) -> Conflict:
    return Conflict("SUPERSEDED", f"another stream of worker {link.worker_id!r} took over")


def _require_own_name(worker_id: str) -> None:
    """A worker speaks for itself only: whoever holds its token could otherwise settle what others have begun."""
    who = caller()
    if who.subject != worker_id:
        told = f"the token is of worker {who.subject!r}, which cannot speak as {worker_id!r}: use the token of that one"
        raise Denied("NOT_THIS_WORKER", told, worker_id=worker_id, subject=who.subject)


async def _bytes(first: wire.PutBlobRequest, frames: AsyncIterator[wire.PutBlobRequest]) -> AsyncIterator[bytes]:
    yield first.data
    async for frame in frames:
        yield frame.data
