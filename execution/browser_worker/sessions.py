"""Sessions: one browser context each, kept across crashes of the browser and of the worker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from playwright.async_api import BrowserContext, Page, Route, StorageState
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.chromium import Chromium
from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.document import Numbers
from execution.browser_worker.egress import Egress
from execution.browser_worker.hosts import HostList
from execution.browser_worker.stops import DocumentGone, Refused
from execution.browser_worker.store import SavedSession, SessionStore, identity
from execution.browser_worker.tab import Tab
from infra.clock import Clock
from infra.log import event_logger

log = event_logger(__name__)

#: Documents that may have been numbered after the last save; a restored session numbers on from beyond them.
_EPOCH_LEAP: Final = 1000


Start = Callable[[], Awaitable[SavedSession | None]]
"""Finds what a session that a worker never had begins with."""


class Session:
    """A live browser context and its tabs."""

    def __init__(
        self,
        key: tuple[str, str],
        context: BrowserContext,
        died: asyncio.Event,
        config: BrowserConfig,
        clock: Clock,
        store: SessionStore,
        egress: Egress,
    ) -> None:
        self.key = key
        #: What every connection of the session goes through.
        self.egress = egress
        self.context = context
        #: Set when the browser that the session lives in has died.
        self.died = died
        self.tabs: list[Tab] = []
        self.active = 0
        self.hosts = HostList(())
        #: Whether the page was loaded again after a crash and nobody has looked at it since.
        self.reloaded = False
        self.used_at = clock.monotonic()
        self.numbers = Numbers()
        self._config = config
        self._clock = clock
        self._store = store
        self._routed: HostList | None = None
        self._told: bytes = b""

    @property
    def tab(self) -> Tab:
        """The tab that actions go to."""
        return self.tabs[self.active]

    async def allow(self, hosts: HostList) -> None:
        """Lets pages reach these hosts and no others."""
        self.hosts = self.egress.hosts = hosts
        if self._routed != hosts:
            await self.context.unroute_all()
            await self.context.route(hosts.outside(), self._deny)
            self._routed = hosts

    async def _deny(self, route: Route) -> None:
        request = route.request
        reason = self.hosts.refusal(request.url) or "scheme not allowed"
        with suppress(PlaywrightError):
            if request.is_navigation_request():
                tab = next((each for each in self.tabs if each.page == request.frame.page), None)
                if tab and request.frame == tab.page.main_frame:
                    tab.deny(request.url, reason)
            await route.abort("blockedbyclient")

    async def new_tab(self) -> Tab:
        """Opens an empty tab and chooses it."""
        if len(self.tabs) >= self._config.max_tabs:
            raise Refused(f"the session has {len(self.tabs)} tabs, which is the limit; close one first")
        tab = await self.watch(await self.context.new_page())
        self.tabs.append(tab)
        self.active = len(self.tabs) - 1
        return tab

    async def watch(self, page: Page, *, unattended: bool = False) -> Tab:
        """A page as a tab that is not in the list."""
        tab = Tab(page, self._config, self._clock, self.numbers)
        await tab.open(self._refusal, unattended=unattended)
        return tab

    def _refusal(self, url: str) -> str:
        return self.hosts.refusal(url)

    async def adopt_popups(self) -> None:
        """Takes over tabs that pages opened, as a person would see them come to the front, and drops closed ones."""
        for tab in list(self.tabs):
            while tab.popups:
                page = tab.popups.pop(0)
                with suppress(PlaywrightError, DocumentGone):
                    if len(self.tabs) >= self._config.max_tabs:
                        await page.close()
                    elif not page.is_closed():
                        self.tabs.append(await self.watch(page))
                        self.active = len(self.tabs) - 1
                        await self.tab.settle(0)
        chosen = self.tab if self.tabs else None
        self.tabs = [each for each in self.tabs if not each.page.is_closed()]
        if not self.tabs:
            await self.new_tab()
        self.active = self.tabs.index(chosen) if chosen in self.tabs else len(self.tabs) - 1

    async def replace_crashed(self) -> None:
        """Gives tabs whose process died a new page at the same address."""
        for index, tab in enumerate(self.tabs):
            if tab.crashed.is_set():
                url = tab.url
                with suppress(PlaywrightError):
                    await tab.page.close()
                self.tabs[index] = await self.watch(await self.context.new_page())
                await self.reopen(self.tabs[index], url)

    async def reopen(self, tab: Tab, url: str) -> None:
        """Loads an address again, by GET. Never what was posted or clicked."""
        if not url.startswith("http") or self.hosts.refusal(url):
            return
        self.reloaded = True
        with suppress(PlaywrightError):
            await tab.page.goto(url, wait_until="domcontentloaded", timeout=self._config.default_timeout * 1000)

    async def save(self) -> StorageState | None:
        """Puts cookies, storage and addresses on disk, so that a login survives kill -9; what was put there."""
        if self.tab.dialog:
            return None
        try:
            storage = await self.context.storage_state()
        except PlaywrightError as error:
            log.warning("session.not_saved", run_id=self.key[0], session_id=self.key[1], error=error)
            return None
        saved = SavedSession(storage, [tab.url for tab in self.tabs], self.active, self.numbers.epoch)
        await asyncio.to_thread(self._store.save, *self.key, saved)
        return storage

    def news(self, storage: StorageState) -> bool:
        """Whether this is another state than was told last."""
        told, self._told = self._told, identity(storage)
        return told != self._told

    async def close(self) -> None:
        with suppress(PlaywrightError):
            await self.context.close()
        await self.egress.close()


class Sessions:
    """Every session of the worker, live or on disk."""

    def __init__(self, chromium: Chromium, config: BrowserConfig, clock: Clock) -> None:
        self._chromium = chromium
        self._config = config
        self._clock = clock
        self.store = SessionStore(config.directory / "sessions")
        self._live: dict[tuple[str, str], Session] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    def lock(self, run_id: str, session_id: str) -> asyncio.Lock:
        """Held while an action runs in the session."""
        return self._locks.setdefault((run_id, session_id), asyncio.Lock())

    def live(self) -> list[Session]:
        return list(self._live.values())

    async def get(
        self, run_id: str, session_id: str, hosts: HostList, start: Start, *, go_back_to_page: bool
    ) -> Session:
        """The session, live: made on first use, restored after a crash. `go_back_to_page`: load its last addresses.

        One that this worker never had begins with the cookies and the storage that `start` gives.
        """
        key = (run_id, session_id)
        browser = await self._chromium.browser()
        session = self._live.get(key)
        if session is not None and (session.context.browser is not browser or not session.tabs):
            await self._live.pop(key).close()
            session = None
        await self._make_room(key)
        if session is None:
            session = await self._open(key, hosts, start, go_back_to_page=go_back_to_page)
            self._live[key] = session
        await session.allow(hosts)
        await session.adopt_popups()
        await session.replace_crashed()
        session.used_at = self._clock.monotonic()
        return session

    async def _open(self, key: tuple[str, str], hosts: HostList, start: Start, *, go_back_to_page: bool) -> Session:
        saved = await asyncio.to_thread(self.store.load, *key) or await start()
        egress = Egress()
        await egress.open()
        try:
            context = await self._context(saved, egress)
        except BaseException:
            await egress.close()
            raise
        session = Session(key, context, self._chromium.died, self._config, self._clock, self.store, egress)
        await session.allow(hosts)
        if saved:
            session.numbers.epoch = saved.epoch + _EPOCH_LEAP
        await session.new_tab()
        if saved and saved.urls and go_back_to_page:
            await self._reopen_tabs(session, saved)
        return session

    async def _context(self, saved: SavedSession | None, egress: Egress) -> BrowserContext:
        width, height = self._config.viewport
        context = await (await self._chromium.browser()).new_context(
            viewport={"width": width, "height": height},
            storage_state=saved.storage if saved else None,
            service_workers="block",
            accept_downloads=True,
            proxy={"server": egress.address},
        )
        context.set_default_timeout(self._config.default_timeout * 1000)
        return context

    async def _reopen_tabs(self, session: Session, saved: SavedSession) -> None:
        for index, url in enumerate(saved.urls[: self._config.max_tabs]):
            tab = session.tab if index == 0 else await session.new_tab()
            await session.reopen(tab, url)
        session.active = min(saved.active, len(session.tabs) - 1)
        log.info("session.restored", run_id=session.key[0], session_id=session.key[1], tabs=len(session.tabs))

    async def _make_room(self, wanted: tuple[str, str]) -> None:
        now = self._clock.monotonic()
        resting = sorted(
            (each for each in self._live.values() if each.key != wanted and not self.lock(*each.key).locked()),
            key=lambda each: each.used_at,
        )
        surplus = len(self._live) + (wanted not in self._live) - self._config.max_sessions
        for index, session in enumerate(resting):
            if index < surplus or now - session.used_at > self._config.idle_limit:
                await self._put_away(session)

    async def _put_away(self, session: Session) -> None:
        """Saves and closes it, unless it is in use by now; who wants it meanwhile waits for what is being saved."""
        lock = self.lock(*session.key)
        if not lock.locked():
            async with lock:
                self._live.pop(session.key, None)
                await session.save()
                await session.close()

    async def end_run(self, run_id: str) -> None:
        """Closes a run's sessions and forgets them."""
        for key in [key for key in self._live if key[0] == run_id]:
            await self._live.pop(key).close()
        for key in [key for key in self._locks if key[0] == run_id]:
            self._locks.pop(key)
        await asyncio.to_thread(self.store.forget, run_id)

    async def close(self) -> None:
        for session in self.live():
            await session.close()
        self._live.clear()
