"""A small web site on loopback: pages, forms that remember what they were sent, a login, slow and broken answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

_FOLDER: Final = Path(__file__).parent / "pages"
_LONG: Final = "<!doctype html><title>Long</title>" + "".join(
    f"<p>paragraph number{n} with some words</p><button>Button{n}</button>" for n in range(400)
)


def _pages() -> dict[str, str]:
    """The pages by path: the files of pages/, and two that are made of others."""
    pages = {f"/{file.stem}": file.read_text() for file in _FOLDER.glob("*.html")}
    return pages | {"/long": _LONG, "/slow-form": pages["/form"].replace("action=/save", "action=/slow-save")}


@dataclass
class Site:
    """What was asked of the site. `url` is 127.0.0.1, `other` the same site as localhost, which is another origin."""

    port: int = 0
    pages: dict[str, str] = field(default_factory=_pages)
    saved: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    asked: list[str] = field(default_factory=list[str])
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def other(self) -> str:
        return f"http://localhost:{self.port}"

    async def page(self, request: web.Request) -> web.Response:
        self.asked.append(f"{request.host.split(':')[0]} {request.path}")
        text = self.pages.get(request.path)
        if text is None:
            raise web.HTTPNotFound(text="<h1>no such page</h1>", content_type="text/html")
        return web.Response(text=text.replace("OTHER", self.other).replace("HERE", self.url), content_type="text/html")

    async def save(self, request: web.Request) -> web.Response:
        self.saved.append({name: str(value) for name, value in (await request.post()).items()})
        raise web.HTTPFound("/saved")

    async def slow_save(self, request: web.Request) -> web.Response:
        """Remembers what came, then holds the answer back until somebody sets `slow`."""
        self.saved.append({name: str(value) for name, value in (await request.post()).items()})
        self.held.set()
        await self.slow.wait()
        raise web.HTTPFound("/saved")

    async def receive(self, request: web.Request) -> web.Response:
        """Keeps the text of an uploaded file."""
        part = (await request.post())["file"]
        assert isinstance(part, web.FileField)
        self.saved.append({"name": part.filename, "text": part.file.read().decode()})
        raise web.HTTPFound("/saved")

    async def strict(self, request: web.Request) -> web.Response:
        """Gives the form back with what is wrong, as applications do: with status 200."""
        said = '<ul class="errorlist"><li>Enter a valid email address.</li></ul><label>Email'
        return web.Response(text=self.pages["/strict"].replace("<label>Email", said), content_type="text/html")

    async def log_in(self, request: web.Request) -> web.Response:
        answer = web.HTTPFound("/private")
        sent = await request.post()
        if sent.get("password") == "hunter22":
            answer.set_cookie("session", "let-me-in")
        raise answer

    async def private(self, request: web.Request) -> web.Response:
        if request.cookies.get("session") != "let-me-in":
            raise web.HTTPFound("/login")
        return web.Response(text="<title>Private</title><h1>Hello, clerk</h1>", content_type="text/html")

    async def broken(self, request: web.Request) -> web.Response:
        raise web.HTTPServiceUnavailable(text="<h1>down</h1>", content_type="text/html")

    async def away(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{self.other}/forbidden")

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file to download: of `size` bytes, `held` back until somebody sets `slow`, or `cut` off in the middle."""
        body = b"a" * int(request.query["size"]) if "size" in request.query else b"a,b\n1,2\n"
        answer = web.StreamResponse(headers={"Content-Disposition": 'attachment; filename="rows.csv"'})
        answer.content_length = len(body)
        await answer.prepare(request)
        await answer.write(body[: len(body) // 2])
        if "cut" in request.query and request.transport:
            request.transport.close()
            return answer
        if "held" in request.query:
            await self.slow.wait()
        await answer.write(body[len(body) // 2 :])
        return answer


@asynccontextmanager
async def serving() -> AsyncGenerator[Site]:
    site = Site()
    application = web.Application()
    application.router.add_post("/save", site.save)
    application.router.add_post("/slow-save", site.slow_save)
    application.router.add_post("/receive", site.receive)
    application.router.add_post("/strict", site.strict)
    application.router.add_post("/login", site.log_in)
    application.router.add_get("/private", site.private)
    application.router.add_get("/broken", site.broken)
    application.router.add_get("/away", site.away)
    application.router.add_get("/rows.csv", site.file)
    application.router.add_get("/{path:.*}", site.page)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    address: Any = runner.addresses[0]
    site.port = address[1]
    try:
        yield site
    finally:
        site.slow.set()
        await runner.cleanup()
