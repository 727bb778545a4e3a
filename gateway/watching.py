"""Following a run to its end, whatever dies on the way: no event is lost and none comes twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from enum import Enum
from itertools import chain, repeat
from typing import TYPE_CHECKING, TypeVar

import grpc

from infra.clock import Clock
from infra.errors import Unavailable
from infra.status import from_rpc_error
from skyagent.run.v1 import run_service_pb2 as api

if TYPE_CHECKING:
    from skyagent.run.v1.run_service_pb2_grpc import RunServiceAsyncStub

# What a gateway or control plane that dies, restarts or drains looks like from here.
BROKEN = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    }
)
PAUSES = (0.1, 0.2, 0.5, 1.0)
PATIENCE = 60.0
CALL_PATIENCE = 20.0

_T = TypeVar("_T")


class Link(Enum):
    """Something about the connection, not about the run."""

    LOST = "lost"
    BACK = "back"


async def follow(
    runs: RunServiceAsyncStub, run_id: str, clock: Clock, *, after_seq: int = 0
) -> AsyncGenerator[api.WatchRunResponse | Link]:
    """What the run's journal says from after_seq on, until its end; across any number of broken connections.

    Raises Unavailable when nothing answers for PATIENCE seconds, and whatever else the service answers, typed.
    """
    seen, failures, lost_at = after_seq, 0, clock.monotonic()
    while True:
        async for item in _one_stream(runs, api.WatchRunRequest(run_id=run_id, after_seq=seen)):
            if failures:
                failures = 0
                yield Link.BACK
            if item.HasField("event"):
                if item.event.seq <= seen:
                    continue
                seen = item.event.seq
            yield item
            if item.HasField("end"):
                return
        if not failures:
            lost_at = clock.monotonic()
            yield Link.LOST
        failures += 1
        if clock.monotonic() - lost_at > PATIENCE:
            raise Unavailable(
                "WATCH_LOST", f"nothing answered for {PATIENCE:.0f} s; the run goes on: `skyagent runs watch {run_id}`"
            )
        await clock.sleep(PAUSES[min(failures, len(PAUSES)) - 1])


async def _one_stream(runs: RunServiceAsyncStub, request: api.WatchRunRequest) -> AsyncGenerator[api.WatchRunResponse]:
    """What one connection brings before it breaks or the server asks to watch again."""
    try:
        async for item in runs.WatchRun(request):
            if item.HasField("reconnect"):
                return
            yield item
    except grpc.aio.AioRpcError as error:
        if error.code() not in BROKEN:
            raise from_rpc_error(error) from error


async def patiently(call: Callable[[], Awaitable[_T]], clock: Clock) -> _T:
    """An answer to a call that may be repeated, across a restart of what answers."""
    began = clock.monotonic()
    for pause in chain(PAUSES, repeat(PAUSES[-1])):
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE or clock.monotonic() - began > CALL_PATIENCE:
                raise
        await clock.sleep(pause)
    raise AssertionError
