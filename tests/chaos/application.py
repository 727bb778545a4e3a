"""A web application with one form, which counts what it was sent. Nobody can ask it afterwards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

_FORM = """<!doctype html><title>New payment</title><form method="post" action="/payments/add/">
<label>Number <input name="number" required></label><label>Amount <input name="amount"></label>
<button>Save</button></form>"""


@dataclass
class Application:
    """How often each number was posted."""

    posts: Counter[str] = field(default_factory=Counter[str])
    url: str = ""
    thinks: float = 0.0
    """Seconds between what a post does and its answer: whoever dies meanwhile cannot know."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def shipped(self, times: int) -> None:
        """Returns once there were so many posts."""
        while sum(self.posts.values()) < times:
            self.changed.clear()
            await self.changed.wait()

    async def form(self, _request: web.Request) -> web.Response:
        return web.Response(text=_FORM, content_type="text/html")

    async def post(self, request: web.Request) -> web.Response:
        self.posts[str((await request.post())["number"])] += 1
        self.changed.set()
        await asyncio.sleep(self.thinks)
        raise web.HTTPFound("/done/")

    async def done(self, _request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>Saved</title><p>Saved!</p>", content_type="text/html")


@asynccontextmanager
async def application() -> AsyncGenerator[Application]:
    made, app = Application(), web.Application()
    app.router.add_get("/payments/add/", made.form)
    app.router.add_post("/payments/add/", made.post)
    app.router.add_get("/done/", made.done)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield made
    finally:
        await runner.cleanup()
