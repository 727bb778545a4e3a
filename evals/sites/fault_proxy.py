"""A reverse proxy between browser and application that forwards faithfully and misbehaves on request, at saves only.

A save whose body has arrived is forwarded even if the browser that sent it is gone by then, as the network would.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from evals.sites.forms import form_fields
from infra.clock import Clock

HOST = "127.0.0.1"
# RFC 9110, 7.6.1: they speak of one connection, not of the message. Lengths are worked out again for the body at hand.
HOP_BY_HOP = frozenset(
    (
        *("connection", "content-length", "keep-alive", "proxy-authenticate", "proxy-authorization"),
        *("te", "trailer", "transfer-encoding", "upgrade"),
    )
)
INVENTED_BY_CLIENT = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
UPSTREAM_S = 30.0
DRAIN_S = 5.0


class Phase(StrEnum):
    """Where a save stands when the hook is called."""

    BEFORE_FORWARD = "before_forward"
    """Its body has been read, the application knows nothing yet."""
    AFTER_FORWARD = "after_forward"
    """The application has answered, the browser knows nothing yet."""


@dataclass(frozen=True, slots=True)
class Save:
    """One POST that creates or changes a record."""

    ordinal: int
    path: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SeenSave:
    """What became of a save. `status` is the answer's, 502 when the application could not be reached."""

    save: Save
    started_ms: int
    took_s: float
    forwarded: bool
    status: int


async def _leave_alone(_save: Save, _phase: Phase) -> None:
    return


async def _to_application(_save: Save) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Faults:
    """What is done to saves. The default does nothing.

    `on_save` is awaited in each phase. `divert` names another instance that shall answer this save in the application's
    place, or None. `post_latency_s` is added to every POST.
    """

    on_save: Callable[[Save, Phase], Awaitable[None]] = _leave_alone
    divert: Callable[[Save], Awaitable[str | None]] = _to_application
    post_latency_s: float = 0.0


NONE = Faults()


@dataclass(slots=True)
class FaultProxy:
    """A running proxy: where it listens and what it has seen."""

    url: str = ""
    seen: list[SeenSave] = field(default_factory=list[SeenSave])


@asynccontextmanager
async def fault_proxy(
    upstream: str, saves: re.Pattern[str], clock: Clock, faults: Faults = NONE
) -> AsyncGenerator[FaultProxy]:
    """Listen on a free port of loopback until the block ends; saves in flight are finished first.

    A save is a POST whose whole path matches `saves`.
    """
    proxy = FaultProxy()
    # A connection each: on a kept one that the application closes meanwhile nobody knows whether a POST arrived.
    connector = TCPConnector(force_close=True)
    async with ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=INVENTED_BY_CLIENT,
        timeout=ClientTimeout(total=UPSTREAM_S),
    ) as session:
        handler = _Handler(session, URL(upstream), saves, clock, faults, proxy.seen)
        runner = web.ServerRunner(web.Server(handler.handle), shutdown_timeout=DRAIN_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, HOST, 0).start()
            proxy.url = f"http://{HOST}:{runner.addresses[0][1]}/"
            yield proxy
        finally:
            await runner.cleanup()


class _Handler:
    def __init__(
        self,
        session: ClientSession,
        upstream: URL,
        saves: re.Pattern[str],
        clock: Clock,
        faults: Faults,
        seen: list[SeenSave],
    ) -> None:
        self._session = session
        self._upstream = upstream
        self._saves = saves
        self._clock = clock
        self._faults = faults
        self._seen = seen
        self._ordinal = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        if request.method != "POST":
            return await self._forward(request, body, self._upstream)
        if self._saves.fullmatch(request.path) is None:
            await self._clock.sleep(self._faults.post_latency_s)
            return await self._forward(request, body, self._upstream)
        self._ordinal += 1
        return await self._save(request, body, Save(self._ordinal, request.path, form_fields(request.headers, body)))

    async def _save(self, request: web.BaseRequest, body: bytes, save: Save) -> web.Response:
        started_ms, started = self._clock.now_ms(), self._clock.monotonic()
        elsewhere = await self._faults.divert(save)
        await self._faults.on_save(save, Phase.BEFORE_FORWARD)
        await self._clock.sleep(self._faults.post_latency_s)
        answer = await self._forward(request, body, URL(elsewhere) if elsewhere else self._upstream)
        took_s = self._clock.monotonic() - started
        self._seen.append(SeenSave(save, started_ms, took_s, elsewhere is None, answer.status))
        await self._faults.on_save(save, Phase.AFTER_FORWARD)
        return answer

    async def _forward(self, request: web.BaseRequest, body: bytes, upstream: URL) -> web.Response:
        # Put together as text: joined as URLs, a path of `//elsewhere/` would name another host.
        target = URL(str(upstream).rstrip("/") + request.raw_path, encoded=True)
        try:
            async with self._session.request(
                request.method, target, headers=_end_to_end(request.headers), data=body or None, allow_redirects=False
            ) as answer:
                return web.Response(
                    status=answer.status,
                    reason=answer.reason,
                    headers=_end_to_end(answer.headers),
                    body=await answer.read(),
                )
        except (ClientError, TimeoutError) as failure:
            return web.Response(status=502, text=f"The application did not answer: {failure!r}\n")


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)
