"""A real server with two contracts of ours and handlers that do what a test asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2

from infra.auth import caller
from infra.channels import dial
from infra.errors import NotFound
from infra.mesh import Register, Runtime, Service
from skyagent.execution.v1 import session_service_pb2 as pb
from skyagent.execution.v1 import session_service_pb2_grpc as rpc
from skyagent.execution.v1 import worker_service_pb2 as worker_pb
from skyagent.execution.v1 import worker_service_pb2_grpc as worker_rpc

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[object, object]
    from skyagent.execution.v1.session_service_pb2_grpc import SessionServiceAsyncStub


class Sessions(rpc.SessionServiceServicer):
    """Does by default what a happy servicer does; a test replaces `act` to do something else in a unary call."""

    def __init__(self) -> None:
        self.act: Callable[[], object] = lambda: None
        self.entered = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.inputs: list[str] = []

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        self.act()
        who = caller()
        return pb.ListSessionsResponse(
            sessions=[pb.Session(session_id=who.subject, run_id=who.tenant, kind=who.role.value)]
        )

    async def TakeControl(self, request: pb.TakeControlRequest, context: Context) -> pb.TakeControlResponse:
        return pb.TakeControlResponse(lease_id=caller().tenant)

    async def KillSession(self, request: pb.KillSessionRequest, context: Context) -> pb.KillSessionResponse:
        """Hangs, as a call that somebody must cancel."""
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return pb.KillSessionResponse()

    async def WatchScreen(
        self, request: pb.WatchScreenRequest, context: Context
    ) -> AsyncIterator[pb.WatchScreenResponse]:
        """One frame, then silence until somebody ends it; session "gone" does not exist."""
        if request.session_id == "gone":
            raise NotFound("SESSION_NOT_FOUND", "session 'gone' does not exist", session_id=request.session_id)
        try:
            yield pb.WatchScreenResponse(frame_seq=1, withheld=caller().tenant)
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def SendInput(
        self, request_iterator: AsyncIterator[pb.SendInputRequest], context: Context
    ) -> pb.SendInputResponse:
        async for request in request_iterator:
            self.inputs.append(request.text)
        return pb.SendInputResponse(applied=len(self.inputs))


class Workers(worker_rpc.WorkerServiceServicer):
    """Echoes sequence numbers, by the read and write calls of the context."""

    async def Control(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request_iterator: AsyncIterator[worker_pb.ControlRequest], context: Context
    ) -> None:
        while isinstance(request := await context.read(), worker_pb.ControlRequest):
            await context.write(worker_pb.ControlResponse(seq=request.seq))


SESSIONS = pb.DESCRIPTOR.services_by_name["SessionService"]
WORKERS = worker_pb.DESCRIPTOR.services_by_name["WorkerService"]


def service_of(sessions: Sessions) -> Service:
    """The service of these handlers."""

    @asynccontextmanager
    async def opened(runtime: Runtime) -> AsyncGenerator[Register]:
        def register(server: grpc.aio.Server) -> None:
            rpc.add_SessionServiceServicer_to_server(sessions, server)
            worker_rpc.add_WorkerServiceServicer_to_server(Workers(), server)  # pyright: ignore[reportAbstractUsage]

        yield register

    return Service("sessions", (SESSIONS, WORKERS), opened)


@asynccontextmanager
async def stub_at(address: str, token: str | None) -> AsyncGenerator[SessionServiceAsyncStub]:
    """The sessions of a server, as the bearer of a token."""
    async with dial(address, token=None if token is None else lambda: token) as channel:
        yield rpc.SessionServiceStub(channel)


async def health_of(address: str, service: str) -> str:
    """What the health service says to anybody."""
    async with grpc.aio.insecure_channel(address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/grpc.health.v1.Health/Check")
        told = await check(health_pb2.HealthCheckRequest(service=service).SerializeToString())
    return health_pb2.HealthCheckResponse.ServingStatus.Name(health_pb2.HealthCheckResponse.FromString(told).status)
