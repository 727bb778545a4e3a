"""A watcher by SSE loses nothing and sees nothing twice, whatever dies; a call is repeated until it is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from evals.end_to_end.rest import PATIENCE_S, Gateway, gateway
from infra.clock import ManualClock, SystemClock
from infra.errors import Internal, Unavailable

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncGenerator[Gateway]:
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with gateway(f"http://127.0.0.1:{runner.addresses[0][1]}", "t0ken", SystemClock()) as client:
            yield client
    finally:
        await runner.cleanup()


def event(seq: int) -> bytes:
    return b"data: " + json.dumps({"event": {"runId": "R", "seq": str(seq)}}).encode() + b"\n\n"


END = b'data: {"end": {"phase": "RUN_PHASE_SUCCEEDED", "headSeq": "5"}}\n\n'


async def sse(request: web.BaseRequest, *pieces: bytes) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for piece in pieces:
        await answer.write(piece)
    return answer


async def watched(client: Gateway) -> list[int]:
    return [item.event.seq async for item in client.follow("R") if item.HasField("event")]


async def test_a_broken_stream_is_taken_up_where_it_broke() -> None:
    asked: list[str] = []

    async def breaks_twice(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["Authorization"] == "Bearer t0ken"
        asked.append(request.query["after_seq"])
        match len(asked):
            case 1:
                answer = await sse(request, event(1), event(2), event(3)[:20])
                assert request.transport is not None
                request.transport.abort()
                return answer
            case 2:
                return web.Response(status=503)
            case 3:
                return await sse(request, event(2), event(3))
            case _:
                return await sse(request, event(4), event(5), END)

    async with served(breaks_twice) as client:
        assert await watched(client) == [1, 2, 3, 4, 5]
    assert asked[0] == "0"
    assert asked[-1] == "3"


async def test_messages_may_be_cut_anywhere() -> None:
    stream = event(1) + b'data: {"heartbeat": {"headSeq": "1"}}\n\n' + event(2) + END

    async def in_small_pieces(request: web.BaseRequest) -> web.StreamResponse:
        return await sse(request, *(stream[at : at + 7] for at in range(0, len(stream), 7)))

    async with served(in_small_pieces) as client:
        assert await watched(client) == [1, 2]


async def test_a_refusal_is_an_error_at_once() -> None:
    async def refuse(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, text="no such run")

    async with served(refuse) as client:
        with pytest.raises(Internal, match="no such run"):
            await watched(client)
        with pytest.raises(Internal, match="no such run"):
            await client.post("/v1/approvals/A:decide", {})


async def test_a_call_is_repeated_until_the_gateway_is_back(tmp_path: Path) -> None:
    bodies: list[object] = []

    async def away_once(request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET":
            return web.Response(body=b"bytes")
        bodies.append(await request.json())
        return web.Response(status=503 if len(bodies) == 1 else 200)

    async with served(away_once) as client:
        await client.post("/v1/approvals/A:decide", {"request_id": "1"})
        fetched = await client.fetch("b3:0", tmp_path / "file")
    assert bodies == [{"request_id": "1"}] * 2
    assert fetched.read_bytes() == b"bytes"


class Skipping(ManualClock):
    """Time passes only by sleeping, and then much of it."""

    async def sleep(self, seconds: float) -> None:
        await self.advance(PATIENCE_S)


async def test_a_gateway_that_never_comes_back_is_given_up() -> None:
    async with gateway("http://127.0.0.1:9", "t0ken", Skipping()) as client:
        with pytest.raises(Unavailable, match="did not come back"):
            await watched(client)
