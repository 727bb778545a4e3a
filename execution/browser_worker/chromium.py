"""One Chromium of our own: started in its own process group, watched, restarted, and never left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from playwright.async_api import Browser, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.config import BrowserConfig
from infra.clock import Clock
from infra.errors import Precondition, Unavailable
from infra.ids import Ids
from infra.log import event_logger
from infra.processes import Child, alive, end_group, find_marked, process_id, read_pidfile, spawn, write_pidfile
from infra.settings import environment

log = event_logger(__name__)

_STOP_GRACE: Final = 2.0
_POLL: Final = 0.01
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
_FEATURES_OFF: Final = (
    "AutofillServerCommunication",
    "CertificateTransparencyComponentUpdater",
    "DialMediaRouteProvider",
    "GlobalMediaControls",
    "HttpsUpgrades",
    "InterestFeedContentSuggestions",
    "MediaRouter",
    "OptimizationHints",
    "PaintHolding",
    "Prerender2",
    "Translate",
)
_FLAGS: Final = (
    "--remote-debugging-port=0",
    *(
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-default-apps",
        "--disable-search-engine-choice-screen",
    ),
    # Nothing leaves but what a page or an action asks for.
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-domain-reliability",
    ),
    *("--disable-client-side-phishing-detection", "--disable-field-trial-config", "--metrics-recording-only"),
    *("--no-pings", "--no-service-autorun", "--disable-breakpad", "--disable-crash-reporter"),
    # Every session has an egress of its own; what would go past it finds no name and no address.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    # WebRTC would reach the network past any proxy.
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
    "--webrtc-ip-handling-policy=disable_non_proxied_udp",
    *("--disable-extensions", "--disable-component-extensions-with-background-pages", "--mute-audio"),
    *("--password-store=basic", "--use-mock-keychain", "--disable-dev-shm-usage", "--force-color-profile=srgb"),
    # Every tab behaves as if it were in front.
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    *("--disable-backgrounding-occluded-windows", "--disable-back-forward-cache", "--disable-hang-monitor"),
    *("--disable-prompt-on-repost", "--disable-popup-blocking", "--site-per-process"),
    f"--disable-features={','.join(_FEATURES_OFF)}",
)
#: The worker's own settings and secrets are not for a process that runs other people's code.
_OURS: Final = "SKYAGENT_"


def find_executable(configured: Path | None) -> Path:
    """Chromium's executable. Raises Precondition with what to install."""
    found = [str(configured)] if configured else [path for name in _NAMES if (path := shutil.which(name))]
    if found and os.access(found[0], os.X_OK):
        return Path(found[0])
    where = f"{configured} is not an executable" if configured else f"none of {', '.join(_NAMES)} is on the PATH"
    raise Precondition(
        "CHROMIUM_MISSING", f"{where}; install it (apt-get install chromium) or set SKYAGENT_BROWSER__EXECUTABLE"
    )


class Chromium:
    """The browser of a worker. An async context manager; `browser()` starts a new one when the old one is dead."""

    def __init__(self, config: BrowserConfig, clock: Clock, ids: Ids) -> None:
        self._config = config
        self._clock = clock
        self._ids = ids
        self._profiles = config.directory / "profiles"
        self._starting = asyncio.Lock()
        self._playwright: Playwright | None = None
        self._child: Child | None = None
        self._browser: Browser | None = None
        self._profile: Path | None = None
        #: Set when the browser that runs now has died; a new one for each launch.
        self.died = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Process id of the running browser, which is also its process group."""
        return self._child.pid if self._child and not self.died.is_set() else None

    async def __aenter__(self) -> Self:
        self._profiles.mkdir(parents=True, exist_ok=True, mode=0o700)
        await self._reap_leftovers()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._end_browser()
        if self._playwright:
            with suppress(PlaywrightError):
                await self._playwright.stop()
            self._playwright = None

    async def browser(self) -> Browser:
        """A live browser. Raises Precondition when there is none to start, Unavailable when it does not start."""
        async with self._starting:
            if self._browser is None or not self._lives():
                await self._end_browser()
                self._browser = await self._launch()
            return self._browser

    def _lives(self) -> bool:
        # The process may be dead some milliseconds before the connection says so.
        return self._child is not None and alive(self._child.identity) and not self.died.is_set()

    async def _launch(self) -> Browser:
        executable = find_executable(self._config.executable)
        began = self._clock.monotonic()
        profile = self._profiles / self._ids.uuid()
        profile.mkdir(mode=0o700)
        self._profile = profile
        if me := process_id(os.getpid()):
            write_pidfile(_owner_file(profile), me)
        self._child = await spawn(
            self._arguments(executable, profile),
            self._clock,
            env=_environment(profile),
            log_path=profile / "chromium.log",
            marker=profile.name,
        )
        self.died = asyncio.Event()
        endpoint = await self._endpoint(self._child, profile)
        browser = await self._connect(endpoint)
        log.info("browser.started", pid=self._child.pid, seconds=round(self._clock.monotonic() - began, 3))
        return browser

    def _arguments(self, executable: Path, profile: Path) -> Sequence[str]:
        # Chromium refuses its sandbox to root. What then contains a page is the worker's own container or namespace.
        sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
        headless = ("--headless=new", "--hide-scrollbars") if self._config.headless else ()
        return (
            str(executable),
            *_FLAGS,
            *sandbox,
            *headless,
            *self._config.flags,
            f"--user-data-dir={profile}",
            "about:blank",
        )

    async def _endpoint(self, child: Child, profile: Path) -> str:
        port_file = profile / "DevToolsActivePort"
        until = self._clock.monotonic() + self._config.launch_timeout
        while self._clock.monotonic() < until and alive(child.identity):
            lines = port_file.read_text().split("\n") if port_file.exists() else []
            if len(lines) > 1 and lines[1]:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await self._clock.sleep(_POLL)
        raise Unavailable(
            "CHROMIUM_NOT_STARTED",
            f"Chromium gave no debugging address; its log ends: {_tail(profile / 'chromium.log')}",
        )

    async def _connect(self, endpoint: str) -> Browser:
        try:
            browser = await (await self._driver()).chromium.connect_over_cdp(endpoint)
        except PlaywrightError:
            # The driver itself may have been killed: a second one is all that can help.
            self._playwright = None
            browser = await (await self._driver()).chromium.connect_over_cdp(endpoint)
        died = self.died
        browser.on("disconnected", lambda _: died.set())
        return browser

    async def _driver(self) -> Playwright:
        if self._playwright is None:
            self._playwright = await async_playwright().start()
        return self._playwright

    async def _end_browser(self) -> None:
        self.died.set()
        browser, child, profile = self._browser, self._child, self._profile
        self._browser = self._child = self._profile = None
        if browser and browser.is_connected():
            with suppress(PlaywrightError):
                await browser.close()
        if child:
            await child.stop(_STOP_GRACE)
        if profile:
            await asyncio.to_thread(_remove, profile)

    async def _reap_leftovers(self) -> None:
        """Ends what a killed worker left: browsers whose marker is ours and whose owner is dead, never by name."""
        for profile in [path for path in self._profiles.iterdir() if path.is_dir()]:
            owner = read_pidfile(_owner_file(profile))
            if owner and alive(owner):
                continue
            for leftover in find_marked(profile.name):
                log.warning("browser.reaped", pid=leftover.pid)
                await end_group(leftover, self._clock, 0)
            await asyncio.to_thread(_remove, profile)


def _environment(profile: Path) -> dict[str, str]:
    theirs = {name: value for name, value in environment().items() if not name.startswith(_OURS)}
    # Nothing is written into the home of whoever runs the worker.
    return theirs | {"XDG_CONFIG_HOME": str(profile / "config"), "XDG_CACHE_HOME": str(profile / "cache")}


def _owner_file(profile: Path) -> Path:
    return profile.with_suffix(".owner")


def _remove(profile: Path) -> None:
    shutil.rmtree(profile, ignore_errors=True)
    _owner_file(profile).unlink(missing_ok=True)


def _tail(path: Path) -> str:
    return path.read_text(errors="replace")[-500:].strip() if path.exists() else "(empty)"
