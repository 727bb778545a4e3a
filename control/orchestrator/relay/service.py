"""RelayService: the streams that owners on other nodes dial to reach the workers of this one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from control.journal import Node
from control.orchestrator.relay.lending import RelayedOwner
from control.orchestrator.relay.routes import Routes
from infra.errors import Precondition, Unavailable
from infra.outbox import MOST_FRAMES
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import relay_service_pb2_grpc as rpc


class RelayServicer(rpc.RelayServiceServicer):
    """Takes owners, keeps their streams, and gives what they say to the routes."""

    def __init__(self, routes: Routes, me: Node) -> None:
        self._routes, self._me = routes, me

    async def Relay(  # pyright: ignore[reportIncompatibleMethodOverride] -- grpc.aio takes a coroutine that writes, too
        self,
        request_iterator: AsyncIterator[relay.RelayRequest],
        context: grpc.aio.ServicerContext[relay.RelayRequest, relay.RelayResponse],
    ) -> None:
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or not first.frames[0].HasField("hello"):
            raise Precondition("HELLO_EXPECTED", "the first frame of an owner's stream must be hello")
        owner = self._routes.admit(self._named(first.frames[0].hello))
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._read(owner, first, requests))
                await self._write(owner, context)
                if not reading.done():
                    raise Unavailable("RELAY_ENDED", "this node takes you for dead, or has a later stream of you")
        finally:
            self._routes.dismiss(owner)

    def _named(self, hello: relay.RelayHello) -> Node:
        if (hello.node_id, hello.incarnation_id) == (self._me.node_id, self._me.incarnation):
            raise Precondition(
                "OWN_ADDRESS", "this node announces an address that leads to itself from others: set SKYAGENT_ADVERTISE"
            )
        return Node(hello.node_id, hello.incarnation_id)

    async def _read(
        self, owner: RelayedOwner, first: relay.RelayRequest, requests: AsyncIterator[relay.RelayRequest]
    ) -> None:
        for frame in first.frames[1:]:
            self._routes.hear(owner, frame)
        async for request in requests:
            for frame in request.frames:
                if not owner.closed:
                    self._routes.hear(owner, frame)
        owner.close()

    async def _write(
        self, owner: RelayedOwner, context: grpc.aio.ServicerContext[relay.RelayRequest, relay.RelayResponse]
    ) -> None:
        while frames := await owner.outbox.take(MOST_FRAMES):
            await context.write(relay.RelayResponse(frames=frames))
