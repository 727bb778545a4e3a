"""A person at a page: what it looks like, and whether anything went wrong that a person would not see."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from playwright.async_api import Browser, ConsoleMessage, Page, Request

REPOSITORY = Path(__file__).resolve().parents[2]
SHOTS = REPOSITORY / "build" / "dashboard"
AXE = REPOSITORY / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"

WIDE, NARROW = (1440, 900), (390, 844)


@dataclass
class Look:
    """An open page, with all that it said and asked for."""

    page: Page
    said: list[str] = field(default_factory=list[str])
    asked: set[str] = field(default_factory=set[str])

    async def shot(self, name: str) -> None:
        """A picture for people, in build/dashboard/."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SHOTS / f"{name}.png")

    async def accessibility_faults(self) -> list[str]:
        """What axe-core finds against WCAG 2.1 AA."""
        # Evaluated, not added as a script: the page's own policy allows no foreign scripts.
        await self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await self.page.evaluate(
            "async () => (await axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})).violations"
            ".map(fault => `${fault.id}: ${fault.nodes.map(node => node.html).slice(0, 3).join(' | ')}`)"
        )
        return list(found)


@asynccontextmanager
async def looking(
    browser: Browser, size: tuple[int, int] = WIDE, scheme: Literal["dark", "light"] = "dark"
) -> AsyncGenerator[Look]:
    """A new person: no cookie, no token."""
    # Without motion: drawing it in software costs the mesh beside it half a processor.
    context = await browser.new_context(
        viewport={"width": size[0], "height": size[1]}, color_scheme=scheme, reduced_motion="reduce"
    )
    await context.grant_permissions(["clipboard-read", "clipboard-write"])
    look = Look(await context.new_page())

    def hear(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            look.said.append(message.text)

    def note(request: Request) -> None:
        if request.url.startswith("http"):
            look.asked.add(urlsplit(request.url).netloc)

    look.page.on("console", hear)
    look.page.on("pageerror", lambda error: look.said.append(str(error)))
    look.page.on("request", note)
    try:
        yield look
    finally:
        await context.close()
