"""The gateway by plain HTTP, as any client has it: events by SSE without a gap, answers, and bytes by digest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout
from google.protobuf.json_format import Parse

from infra.clock import Clock
from infra.errors import Internal, Unavailable
from skyagent.run.v1.run_service_pb2 import WatchRunResponse

PAUSE_S = 0.1
PATIENCE_S = 60.0
SILENCE_S = 30.0
"""A stream that brings nothing for so long, not even a heartbeat, is broken."""
AWAY = frozenset((502, 503, 504))

T = TypeVar("T")


class Gateway:
    """One gateway; every call outlives its death and the control plane's."""

    def __init__(self, session: ClientSession, clock: Clock) -> None:
        self._session = session
        self._clock = clock

    async def follow(self, run_id: str) -> AsyncIterator[WatchRunResponse]:
        """Events and heartbeats of a run, each event once and in order, until its end.

        Raises Unavailable when nothing answers for PATIENCE_S.
        """
        seen, heard = 0, self._clock.monotonic()
        while True:
            try:
                async for item in self._stream(run_id, seen):
                    heard = self._clock.monotonic()
                    if item.HasField("event"):
                        if item.event.seq <= seen:
                            continue
                        seen = item.event.seq
                    yield item
                    if item.HasField("end"):
                        return
            except (ClientError, TimeoutError):
                pass
            if self._clock.monotonic() - heard > PATIENCE_S:
                raise Unavailable("GATEWAY_GONE", f"the gateway did not come back within {PATIENCE_S:.0f} s")
            await self._clock.sleep(PAUSE_S)

    async def post(self, path: str, body: Mapping[str, object]) -> None:
        """A call that may be repeated; raises Internal for an answer that is an error."""

        async def call() -> bool:
            async with self._session.post(path, json=body) as answer:
                await _require_fine(answer)
                return True

        await self._patiently(call)

    async def fetch(self, digest: str, into: Path) -> Path:
        """The bytes of a digest, as a file."""

        async def call() -> bytes:
            async with self._session.get(f"/v1/blobs/{digest}") as answer:
                await _require_fine(answer)
                return await answer.read()

        await asyncio.to_thread(into.write_bytes, await self._patiently(call))
        return into

    async def _stream(self, run_id: str, after_seq: int) -> AsyncIterator[WatchRunResponse]:
        query = {"after_seq": str(after_seq)}
        timeout = ClientTimeout(total=None, sock_read=SILENCE_S)
        async with self._session.get(f"/v1/runs/{run_id}:watch", params=query, timeout=timeout) as answer:
            if answer.status in AWAY:
                return
            await _require_fine(answer)
            held = b""
            async for piece in answer.content.iter_any():
                *whole, held = (held + piece).split(b"\n\n")
                for message in whole:
                    yield Parse(message.removeprefix(b"data:").strip(), WatchRunResponse())

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        until = self._clock.monotonic() + PATIENCE_S
        while True:
            try:
                return await call()
            except (ClientError, TimeoutError, Unavailable):
                if self._clock.monotonic() > until:
                    raise
            await self._clock.sleep(PAUSE_S)


async def _require_fine(answer: ClientResponse) -> None:
    if answer.status in AWAY:
        raise Unavailable("GATEWAY_AWAY", f"{answer.url} was answered with {answer.status}")
    if not answer.ok:
        raise Internal("GATEWAY_REFUSED", f"{answer.url} was answered with {answer.status}: {await answer.text()}")


@asynccontextmanager
async def gateway(address: str, token: str, clock: Clock) -> AsyncGenerator[Gateway]:
    """A client of the gateway at this address, as the bearer of this token."""
    async with ClientSession(address, headers={"Authorization": f"Bearer {token}"}) as session:
        yield Gateway(session, clock)
