"""One tab: its documents, its requests, its dialogs, and when it is still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from playwright.async_api import Dialog, Download, Page
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.cdp import Cdp, Record, record, send
from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.document import Numbers
from execution.browser_worker.network import Network
from execution.browser_worker.stops import DocumentGone
from execution.browser_worker.worlds import Worlds
from infra.clock import Clock

_LOCAL_FRAMES = ("about:", "data:", "blob:")


class Tab:
    """A page of a session with everything that watches it."""

    def __init__(self, page: Page, config: BrowserConfig, clock: Clock, numbers: Numbers) -> None:
        self.page = page
        self.worlds = Worlds(page, numbers, self._guard)
        self.network = Network(page, clock)
        #: The JavaScript dialog that is open; it stops every script of the page.
        self.dialog: Dialog | None = None
        self.dialog_opened = asyncio.Event()
        self.downloads: list[Download] = []
        #: Tabs that this one opened and that nobody has taken over yet.
        self.popups: list[Page] = []
        #: Addresses that were asked for and refused, newest last: (address, reason).
        self.denials: list[tuple[str, str]] = []
        #: Set when the page's process died.
        self.crashed = asyncio.Event()
        #: What the last observation of this tab showed, for the next diff.
        self.shown: tuple[int, list[str]] | None = None
        self._config = config
        self._clock = clock
        self._refusal: Callable[[str], str] = lambda _: ""
        self._unattended = False
        #: Windows that the page has opened and that are not ready to be taken over yet.
        self._opening = 0

    async def open(self, refusal: Callable[[str], str], *, unattended: bool = False) -> None:
        """Begins to watch; `refusal` says why an address may not be opened. Unattended: dialogs are dismissed."""
        self._unattended = unattended
        self._refusal = refusal
        self.page.on("dialog", self._dialog_opened)
        self.page.on("download", self._downloaded)
        self.page.on("popup", self._popped_up)
        self.page.on("crash", lambda _: self.crashed.set())
        await self.worlds.open()
        self.cdp.on("Page.windowOpen", self._window_opened)

    async def _guard(self, cdp: Cdp) -> None:
        """Playwright's routes do not see redirects; this does, before the request leaves."""
        cdp.on("Fetch.requestPaused", lambda event: self._judge(cdp, event))
        await send(cdp, "Fetch.enable", {"patterns": [{"urlPattern": "*", "resourceType": "Document"}]})

    @property
    def cdp(self) -> Cdp:
        return self.worlds.cdp

    @property
    def answers(self) -> bool:
        """Whether scripts run in the page now: no dialog is open and no document is on its way."""
        return self.dialog is None and self.network.loading() is None

    @property
    def url(self) -> str:
        return self.page.url

    def deny(self, url: str, reason: str) -> None:
        """Notes that an address was refused."""
        self.denials.append((url, reason))
        self.network.stir()

    async def _judge(self, cdp: Cdp, event: Record) -> None:
        request = record(event["request"])
        url = str(request["url"])
        in_frame = event.get("frameId") != self.worlds.main_frame_id
        reason = "" if in_frame and url.startswith(_LOCAL_FRAMES) else self._refusal(url)
        try:
            if reason:
                if not in_frame:
                    self.deny(url, reason)
                await send(cdp, "Fetch.failRequest", {"requestId": event["requestId"], "errorReason": "Aborted"})
            else:
                await send(cdp, "Fetch.continueRequest", {"requestId": event["requestId"]})
        except (DocumentGone, PlaywrightError):
            # The request went away with its page.
            return

    async def _dialog_opened(self, dialog: Dialog) -> None:
        if self._unattended:
            with suppress(PlaywrightError):
                await dialog.dismiss()
            return
        self.dialog = dialog
        self.dialog_opened.set()
        self.network.stir()

    def _downloaded(self, download: Download) -> None:
        self.downloads.append(download)
        self.network.stir()

    def _window_opened(self, _event: Record) -> None:
        self._opening += 1

    def _popped_up(self, page: Page) -> None:
        self._opening = max(0, self._opening - 1)
        self.popups.append(page)
        self.network.stir()

    async def settle(self, mark: int, limit: float | None = None, stillness: float | None = None) -> bool:
        """Waits until nothing changes and nothing asked for since the mark is on its way: whether it came to that."""
        still = stillness or self._config.stillness
        until = self._clock.monotonic() + (limit or self._config.settle_limit)
        while (left := until - self._clock.monotonic()) > 0 and self.dialog is None:
            if self.network.loading() or self._opening:
                await self.network.stirred(left)
                continue
            try:
                quiet = await self.worlds.main.call(bool, "quiet", still * 1000, left * 1000)
            except DocumentGone:
                await self.network.stirred(min(left, still))
                continue
            if quiet and not self.network.busy(mark):
                return True
            if self.network.busy(mark):
                await self.network.stirred(max(0.0, until - self._clock.monotonic()))
        # A window that did not come by now was kept from opening.
        self._opening = 0
        return False

    async def until_loaded(self) -> None:
        """Waits until no document is on its way, because a tab answers nothing meanwhile."""
        while self.network.loading() and self.dialog is None:
            await self.network.stirred(1.0)

    async def until_document(self, mark: int, epoch: int) -> None:
        """Waits until a document that was asked for since the mark has arrived and can be used, or has failed."""
        while self.dialog is None:
            flight = self.network.document(mark)
            if flight and flight.exchange.error:
                return
            if flight and flight.settled and self.epoch > epoch:
                await self.page.wait_for_load_state("domcontentloaded", timeout=0)
                return
            if self.denials or self.popups:
                return
            await self.network.stirred(1.0)

    @property
    def epoch(self) -> int:
        """Epoch of the tab's own document; 0 while there is none."""
        try:
            return self.worlds.main.epoch
        except DocumentGone:
            return 0
