"""What a tab asked the network for, and what came back on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from urllib.parse import urldefrag

from playwright.async_api import Error as PlaywrightError
from playwright.async_api import Page, Request, Response

from infra.clock import Clock
from skyagent.execution.v1.browser_pb2 import HttpExchange

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
#: These stay open by design and say nothing about whether a page is still loading.
_ENDLESS: Final = frozenset({"eventsource", "websocket", "media", "ping", "manifest"})
_KEPT: Final = 2000
_MINOR_REPORTED: Final = 40


class Flight:
    """One request and what is known of its answer."""

    __slots__ = ("began", "done", "exchange", "main", "request")

    def __init__(self, request: Request, began: float, *, main: bool) -> None:
        self.request = request
        self.began = began
        self.main = main
        self.done = False
        self.exchange = HttpExchange(
            method=request.method, url=urldefrag(request.url).url, resource_type=request.resource_type
        )

    @property
    def unsafe(self) -> bool:
        """Whether it may change something at the server (RFC 9110, 9.2.1)."""
        return self.exchange.method not in _SAFE

    @property
    def redirect(self) -> bool:
        return bool(self.exchange.location) and self.exchange.status // 100 == 3

    @property
    def settled(self) -> bool:
        """A document that arrived or failed, and leads nowhere else."""
        return (self.exchange.status > 0 and not self.redirect) or bool(self.exchange.error)


class Network:
    """The requests of one tab, in order; events() and marks say what happened since."""

    def __init__(self, page: Page, clock: Clock) -> None:
        self._page = page
        self._clock = clock
        self._flights: list[Flight] = []
        self._dropped = 0
        self._by_request: dict[Request, Flight] = {}
        self._stirred = asyncio.Event()
        #: HTTP status of the document that is shown; 0 when it did not come over HTTP.
        self.document_status = 0
        page.on("request", self._requested)
        page.on("response", self._answered)
        page.on("requestfinished", self._finished)
        page.on("requestfailed", self._failed)

    def mark(self) -> int:
        """Now, for `since` and the others."""
        return self._dropped + len(self._flights)

    def since(self, mark: int) -> Sequence[Flight]:
        return self._flights[max(0, mark - self._dropped) :]

    def busy(self, mark: int) -> bool:
        """Whether anything that was asked for since then is still on its way."""
        return any(not each.done and each.exchange.resource_type not in _ENDLESS for each in self.since(mark))

    def loading(self) -> Flight | None:
        """The document for the whole tab that is on its way. Chromium runs no script in the tab until it has come."""
        last = self.document(0)
        return last if last and not last.settled else None

    def document(self, mark: int) -> Flight | None:
        """The last document for the whole tab that was asked for since then."""
        return next((each for each in reversed(self.since(mark)) if each.main), None)

    def sent_unsafe(self, mark: int) -> bool:
        """Whether a request that may change something left since then."""
        return any(each.unsafe for each in self.since(mark))

    def exchanges(self, mark: int) -> list[HttpExchange]:
        """Documents and requests that may change something, all of them; the newest of the others up to a bound."""
        flights = self.since(mark)
        major = {id(each) for each in flights if each.unsafe or each.exchange.resource_type == "document"}
        minor = [id(each) for each in flights if id(each) not in major][-_MINOR_REPORTED:]
        kept = major | set(minor)
        return [each.exchange for each in flights if id(each) in kept]

    async def stirred(self, limit: float) -> bool:
        """Waits for the next event on the wire, at most so many seconds: whether there was one."""
        self._stirred.clear()
        try:
            async with asyncio.timeout(limit):
                return await self._stirred.wait()
        except TimeoutError:
            return False

    def stir(self) -> None:
        """Wakes whoever waits for events; other things of the tab that people wait for call it too."""
        self._stirred.set()

    def _requested(self, request: Request) -> None:
        flight = Flight(request, self._clock.monotonic(), main=self._is_main(request))
        if before := request.redirected_from and self._by_request.get(request.redirected_from):
            self._land(before)
        self._flights.append(flight)
        self._by_request[request] = flight
        if len(self._flights) > _KEPT:
            self._by_request.pop(self._flights.pop(0).request, None)
            self._dropped += 1
        self._stirred.set()

    def _is_main(self, request: Request) -> bool:
        try:
            return request.is_navigation_request() and request.frame == self._page.main_frame
        except PlaywrightError:
            # The frame of a navigation that has not begun is not known yet; only a whole tab is opened that way.
            return request.is_navigation_request()

    def _answered(self, response: Response) -> None:
        flight = self._by_request.get(response.request)
        if flight is None:
            return
        flight.exchange.status = response.status
        flight.exchange.location = response.headers.get("location", "")
        if flight.main and not flight.redirect:
            self.document_status = response.status
        self._stirred.set()

    def _finished(self, request: Request) -> None:
        if flight := self._by_request.get(request):
            self._land(flight)

    def _failed(self, request: Request) -> None:
        if flight := self._by_request.get(request):
            flight.exchange.error = request.failure or "failed"
            self._land(flight)

    def _land(self, flight: Flight) -> None:
        if not flight.done:
            flight.done = True
            flight.exchange.duration_ms = round((self._clock.monotonic() - flight.began) * 1000)
        self._stirred.set()
