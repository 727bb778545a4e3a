"""A real Chromium and a real site, one of each for a module; a fresh run for every test."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
import pytest_asyncio

from execution.browser_worker import BrowserExecutor
from tests.execution.browser_worker.hands import Hands, executing
from tests.execution.browser_worker.site import Site, serving


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncGenerator[Site]:
    async with serving() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory, site: Site) -> AsyncGenerator[BrowserExecutor]:
    async with executing(tmp_path_factory.mktemp("browser"), url=site.url) as executor:
        yield executor


@pytest_asyncio.fixture(loop_scope="module")
async def hands(browser: BrowserExecutor, site: Site) -> AsyncGenerator[Hands]:
    ready = Hands(browser, site.url)
    yield ready
    await browser.end_run(ready.run_id)
