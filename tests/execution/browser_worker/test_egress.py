"""The wall around a session: where a connection may lead, and what a real Chromium gets through it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from execution.browser_worker import egress as egress_module
from execution.browser_worker.egress import Egress
from execution.browser_worker.hosts import HostList
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.effect_pb2 import EFFECT_UNKNOWN
from tests.execution.browser_worker.hands import ONCE, Hands, located, status

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAGES = {
    "img": "<img src=/r?to=img>",
    "style": "<link rel=stylesheet href=/r?to=style>",
    "fetch": "<script>fetch('/r?to=fetch', {mode: 'no-cors'}).catch(() => 0)</script>",
    "post": "<script>fetch('/r?to=post', {mode: 'no-cors', method: 'POST', body: 'x'}).catch(() => 0)</script>",
    "events": "<script>new EventSource('/r?to=events')</script>",
    "socket": "<script>new WebSocket('ws://localhost:PORT/socket')</script>",
    "prefetch": "<link rel=prefetch href=/r?to=prefetch>",
    "speculation": '<script type=speculationrules>{"prefetch": [{"source": "list", "eagerness": "immediate",'
    ' "urls": ["http://localhost:PORT/speculation"]}]}</script>',
    "worker": "<script>new Worker('/worker.js')</script>",
    "shared": "<script>new SharedWorker('/shared.js')</script>",
    "popup": "<script>window.open('/r?to=popup')</script>",
    "form": "<form id=f action='/r?to=form' method=post target=_blank></form><script>f.submit()</script>",
    "frame": "<iframe src='/r?to=frame'></iframe><object data='/r?to=object'></object>",
}
SCRIPT = "fetch('/r?to=NAME', {mode: 'no-cors'}).finally(() => fetch('http://localhost:PORT/NAME', {mode: 'no-cors'}))"
LAST = "<img src=/seen>"
"""What each page asks for at its end, so that a test knows when everything before has been tried."""


@dataclass
class Neighbour:
    """One server under two names: 127.0.0.1, which the mission may reach, and localhost, which it may not."""

    port: int = 0
    strayed: list[str] = field(default_factory=list[str])
    tried: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if not request.host.startswith("127.0.0.1"):
            self.strayed.append(f"{request.method} {request.path}")
        if request.path == "/r":
            raise web.HTTPTemporaryRedirect(f"http://localhost:{self.port}/{request.query['to']}")
        if request.path == "/seen":
            self.tried.set()
        if request.path.endswith(".js"):
            text = SCRIPT.replace("NAME", request.path[1:-3])
            return web.Response(text=text.replace("PORT", str(self.port)), content_type="text/javascript")
        page = PAGES.get(request.path[1:], "<p>plain</p>") + LAST
        return web.Response(text=page.replace("PORT", str(self.port)), content_type="text/html")


@pytest_asyncio.fixture(loop_scope="module")
async def neighbour() -> AsyncGenerator[Neighbour]:
    one, application = Neighbour(), web.Application()
    application.router.add_route("*", "/{path:.*}", one.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address: Any = runner.addresses[0]
    one.port = address[1]
    yield one
    await runner.cleanup()


@pytest.mark.parametrize("page", PAGES)
async def test_nothing_that_a_page_can_do_reaches_a_host_out_of_bounds(
    hands: Hands, neighbour: Neighbour, page: str
) -> None:
    here = f"http://127.0.0.1:{neighbour.port}"
    hands.may_reach(here)
    await hands.go(f"{here}/{page}")
    async with asyncio.timeout(10):
        await neighbour.tried.wait()
    # Another page of the same session, through the same wall: what came before it has been dialled or refused by then.
    await hands.go(f"{here}/plain")
    assert neighbour.strayed == []


async def test_the_same_page_reaches_a_host_within_bounds(hands: Hands, neighbour: Neighbour) -> None:
    here = f"http://127.0.0.1:{neighbour.port}"
    hands.may_reach(here, f"http://localhost:{neighbour.port}")
    await hands.go(f"{here}/img")
    assert neighbour.strayed == ["GET /img"]


async def test_a_name_that_leads_to_this_machine_is_refused_with_the_reason(
    hands: Hands, neighbour: Neighbour, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rebound(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(egress_module, "_addresses", rebound)
    shop = f"http://shop.example:{neighbour.port}"
    hands.may_reach(shop)
    outcome = await hands.go(f"{shop}/plain")
    assert status(outcome) == "POLICY_DENIED"
    assert "shop.example leads to 127.0.0.1" in outcome.message
    assert neighbour.strayed == []


@dataclass
class Forgetful:
    """Takes every POST and ends the connection without an answer; keeps connections otherwise."""

    page: bytes
    port: int = 0
    posts: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if head.startswith(b"POST"):
                    self.posts += 1
                    break
                answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(self.page)
                writer.write(answer + self.page)
        except asyncio.IncompleteReadError:
            pass
        writer.close()


@asynccontextmanager
async def _forgetful(page: bytes) -> AsyncGenerator[Forgetful]:
    one = Forgetful(page)
    async with await asyncio.start_server(one.serve, "127.0.0.1", 0) as server:
        one.port = server.sockets[0].getsockname()[1]
        yield one


@pytest.mark.parametrize("ahead", [b"", b"<link rel=preconnect href=/>"], ids=["kept", "opened ahead"])
async def test_a_post_that_nobody_answers_is_sent_once_and_its_effect_is_unknown(hands: Hands, ahead: bytes) -> None:
    async with _forgetful(ahead + b"<form method=post><input name=a value=1><button>Save</button></form>") as server:
        here = f"http://127.0.0.1:{server.port}/"
        hands.may_reach(here)
        await hands.go(here)
        click = pb.ClickAction(target=located(role="button", name="Save"), expect_navigation=True)
        outcome = await hands.do(ONCE, click=click)
    assert server.posts == 1
    assert (status(outcome), outcome.effect) == ("NETWORK_ERROR", EFFECT_UNKNOWN)


@asynccontextmanager
async def _through(hosts: tuple[str, ...], host: str, port: int) -> AsyncGenerator[tuple[int, Any, Any]]:
    """A connection by way of an egress: what it was answered, and both ends of it."""
    way = Egress()
    way.hosts = HostList(hosts)
    await way.open()
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(way.address.rpartition(":")[2]))
        writer.write(b"\x05\x01\x00\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + struct.pack(">H", port))
        answer = await reader.readexactly(12)
        yield answer[3], reader, writer
        writer.close()
    finally:
        await way.close()


@pytest.mark.parametrize(
    ("host", "code"), [("127.0.0.1", 0), ("[127.0.0.1]", 0), ("localhost", 2), ("nowhere.invalid", 2)]
)
async def test_only_hosts_of_the_list_are_dialled(neighbour: Neighbour, host: str, code: int) -> None:
    async with _through((f"127.0.0.1:{neighbour.port}",), host, neighbour.port) as (answer, _, _):
        assert answer == code


@pytest.mark.parametrize("listed", ["127.0.0.1:1", "127.0.0.1:80", "127.0.0.1"])
async def test_a_port_that_is_not_of_the_list_is_not_dialled(neighbour: Neighbour, listed: str) -> None:
    async with _through((listed,), "127.0.0.1", neighbour.port) as (answer, _, _):
        assert answer == 2


async def test_what_is_encrypted_passes_as_it_is() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(300_000))
        writer.close()

    sent = b"\x16\x03\x01POST / HTTP/1.1\r\n" + bytes(300_000)
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with _through((f"127.0.0.1:{port}",), "127.0.0.1", port) as (_, reader, writer):
            writer.write(sent)
            assert await reader.read(-1) == sent[:300_000]
