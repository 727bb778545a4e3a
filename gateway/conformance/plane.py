"""A control plane of one worker: it takes the streams that are dialled and the evidence that is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.protobuf.message import Message

from gateway.conformance.stream import PATIENCE, Faults, Stream
from gateway.conformance.transcript import Transcript
from gateway.conformance.verdicts import Failed
from infra.clock import Clock
from infra.digest import digest_of
from infra.errors import Precondition
from skyagent.execution.v1 import worker_service_pb2 as pb

SERVICE = pb.DESCRIPTOR.services_by_name["WorkerService"].full_name
_MAX_MESSAGE_BYTES = 4 * 1024 * 1024

Context = grpc.aio.ServicerContext[pb.ControlRequest, pb.ControlResponse]
BlobContext = grpc.aio.ServicerContext[pb.PutBlobRequest, pb.PutBlobResponse]


class Plane:
    """`stores` is cleared to let PutBlob fail; `turning_away` lets so many streams end, with a status, before Hello."""

    def __init__(self, token: str, clock: Clock, transcript: Transcript) -> None:
        self.blobs: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.stores = True
        self.turning_away = 0
        self.turning_away_with = grpc.StatusCode.UNAVAILABLE
        self.turned_away_at: list[float] = []
        self.faults = Faults()
        self.address = ""
        self._token, self._clock, self._transcript = token, clock, transcript
        self._server: grpc.aio.Server | None = None
        self._dialled: asyncio.Queue[Stream] = asyncio.Queue()
        self._streams = 0
        self._put_tried = asyncio.Event()

    async def open(self, address: str) -> None:
        """Listens. Raises Precondition when it cannot."""
        server = grpc.aio.server(options=(("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        host = address.rpartition(":")[0]
        try:
            port = server.add_insecure_port(address)
        except RuntimeError as bad:
            raise Precondition("ADDRESS_IN_USE", f"cannot listen on {address}: choose another, or port 0") from bad
        await server.start()
        self._server, self.address = server, f"{host}:{port}"

    async def close(self) -> None:
        """Goes away as a server that was killed does."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def dialled(self, within: float = PATIENCE) -> Stream:
        """The next stream, its Hello heard. Failed: none was dialled."""
        try:
            async with asyncio.timeout(within):
                stream = await self._dialled.get()
        except TimeoutError:
            raise Failed(f"the worker did not dial within {within:g} s") from None
        stream.hello = (await stream.expect("hello", what="Hello as the first frame")).hello
        return stream

    def dialling(self) -> bool:
        """Whether a stream waits to be greeted."""
        return not self._dialled.empty()

    def forget_dialled(self) -> None:
        """Streams that nobody greeted are over."""
        while not self._dialled.empty():
            self._dialled.get_nowait().close()

    async def put_tried(self) -> None:
        """Returns once evidence was offered, stored or not."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._put_tried.wait()
        except TimeoutError:
            raise Failed(f"no evidence was offered by PutBlob within {PATIENCE:g} s") from None

    def forget_puts(self) -> None:
        """As if nothing had been stored so far."""
        self.blobs.clear()
        self.puts.clear()
        self._put_tried.clear()

    def _handlers(self) -> dict[str, grpc.RpcMethodHandler[object, object]]:
        return {
            "Control": grpc.stream_stream_rpc_method_handler(self._control, pb.ControlRequest.FromString, _bytes_of),
            "PutBlob": grpc.stream_unary_rpc_method_handler(self._put_blob, pb.PutBlobRequest.FromString, _bytes_of),
            "GetBlob": grpc.unary_stream_rpc_method_handler(self._get_blob, pb.GetBlobRequest.FromString, _bytes_of),
        }  # pyright: ignore[reportReturnType]

    async def _control(self, requests: AsyncIterator[pb.ControlRequest], context: Context) -> None:
        self._streams += 1
        metadata = {str(key): str(value) for key, value in context.invocation_metadata() or ()}
        if self.turning_away:
            self.turning_away -= 1
            self.turned_away_at.append(self._clock.monotonic())
            status = self.turning_away_with
            self._transcript.note(f"#{self._streams} dialled, and turned away as {status.name}")
            await context.abort(status, "the conformance check turns this stream away")
        self._check_token(metadata)
        stream = Stream(self._streams, metadata, self._clock, self._transcript, self.faults)
        self._transcript.note(f"#{self._streams} dialled")
        self._dialled.put_nowait(stream)
        try:
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(stream.listen(requests))
                status = await stream.speak(context.write)  # pyright: ignore[reportArgumentType]
                listening.cancel()
        finally:
            stream.end()
        if status is not None:
            await context.abort(status, "the conformance check ends this stream")

    def _check_token(self, metadata: dict[str, str]) -> None:
        if self._token and metadata.get("authorization") != f"Bearer {self._token}":
            self.faults.add("token", "the call does not carry `authorization: Bearer` with the token that was given")

    async def _put_blob(self, requests: AsyncIterator[pb.PutBlobRequest], context: BlobContext) -> pb.PutBlobResponse:
        self._check_token({str(key): str(value) for key, value in context.invocation_metadata() or ()})
        first = await anext(requests)
        self._put_tried.set()
        self._transcript.note(f"PutBlob {first.ref.digest} {first.ref.size} bytes{'' if self.stores else ': refused'}")
        if not self.stores:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the conformance check lets this fail")
        data = first.data + b"".join([piece.data async for piece in requests])
        if digest_of(data) != first.ref.digest or len(data) != first.ref.size:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the bytes are not those of the digest")
        self.puts.append(first.ref.digest)
        self.blobs[first.ref.digest] = data
        return pb.PutBlobResponse(ref=first.ref)

    async def _get_blob(self, request: pb.GetBlobRequest, context: Context) -> AsyncIterator[pb.GetBlobResponse]:
        if request.digest not in self.blobs:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing of this digest is stored")
        yield pb.GetBlobResponse(data=self.blobs[request.digest])


@asynccontextmanager
async def plane(address: str, token: str, clock: Clock, transcript: Transcript) -> AsyncGenerator[Plane]:
    """A running one; what it still held is let go of at the end."""
    running = Plane(token, clock, transcript)
    await running.open(address)
    try:
        yield running
    finally:
        await running.close()


def _bytes_of(message: object) -> bytes:
    """A message, or bytes that are to go over the wire as they are."""
    if isinstance(message, Message):
        return message.SerializeToString(deterministic=True)
    return message if isinstance(message, bytes) else b""
