"""The Chrome DevTools Protocol, typed as far as we use it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

from playwright.async_api import BrowserContext, Frame, Page
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.stops import DocumentGone

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
Record = dict[str, Json]

_GONE: Final = (
    "Cannot find context",
    "Cannot find frame",
    "Execution context was destroyed",
    "Frame with the given",
    "Inspected target navigated",
    "No node with given",
    "Session closed",
    "Target closed",
    "has been closed",
    "has been detached",
    "uniqueContextId not found",
)


class Cdp(Protocol):
    """A DevTools session of one target; Playwright's CDPSession with types."""

    async def send(self, method: str, params: Record) -> Record:
        """One command and its answer."""
        ...

    def on(self, event: str, f: Callable[[Record], Awaitable[None] | None]) -> None:
        """Calls `f` with every such event."""
        ...


async def open_cdp(context: BrowserContext, target: Page | Frame) -> Cdp:
    """A session for a page, or for a frame that lives in a process of its own."""
    return cast("Cdp", await context.new_cdp_session(target))


async def send(cdp: Cdp, method: str, parameters: Record | None = None) -> Record:
    """One command. Raises DocumentGone when its target went away."""
    try:
        return await cdp.send(method, parameters or {})
    except PlaywrightError as error:
        if any(sign in error.message for sign in _GONE):
            raise DocumentGone(error.message) from error
        raise


def record(value: Json) -> Record:
    """A value that the protocol says is an object."""
    return cast("Record", value)
