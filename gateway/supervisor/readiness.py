"""When a process counts as ready: it is asked, over the way in which it will be used."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from infra.channels import Readiness, dial
from infra.clock import Clock
from infra.mesh_service import STATE_HEADER

CHECK = "/grpc.health.v1.Health/Check"
POLL = 0.05
CALL_SECONDS = 2.0


def control_plane(address: str, clock: Clock) -> Callable[[int], Awaitable[None]]:
    """Its gRPC health service says SERVING."""

    async def ready(_: int) -> None:
        async with dial(address, readiness=Readiness.WAIT, deadline=CALL_SECONDS) as channel:
            check = channel.unary_unary(
                CHECK, health_pb2.HealthCheckRequest.SerializeToString, health_pb2.HealthCheckResponse.FromString
            )
            while not await _serving(check):
                await clock.sleep(POLL)

    return ready


async def _serving(
    check: grpc.aio.UnaryUnaryMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse],
) -> bool:
    try:
        answer = await check(health_pb2.HealthCheckRequest())
    except grpc.aio.AioRpcError:
        return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def gateway(host: str, port: int, clock: Clock) -> Callable[[int], Awaitable[None]]:
    """The control plane behind it answers /healthz; what is not well there does not keep people from looking."""

    async def ready(_: int) -> None:
        while not await answers(host, port):
            await clock.sleep(POLL)

    return ready


async def answers(host: str, port: int) -> bool:
    """Whether a gateway is there now, and a control plane behind it: only that one says how it is."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET /healthz HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
                return STATE_HEADER.encode() in await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        return False


def worker(inventory: Path, clock: Clock) -> Callable[[int], Awaitable[None]]:
    """It has written its inventory, which it does once the control plane has welcomed it."""

    async def ready(pid: int) -> None:
        while inventory_pid(inventory) != pid:
            await clock.sleep(POLL)

    return ready


def inventory_pid(path: Path) -> int | None:
    """Pid of the worker that wrote the inventory."""
    try:
        return int(json.loads(path.read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
