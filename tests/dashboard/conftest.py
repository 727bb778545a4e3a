"""One mesh with one mission, and one browser, for all tests of the pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, async_playwright

from tests.dashboard.looking import REPOSITORY
from tests.dashboard.mission import Shown, mission_under_way


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Shown]:
    built = REPOSITORY / "dashboard" / "dist" / "index.html"
    assert built.is_file(), "the dashboard is not built; `make setup` builds it"
    folder: Path = tmp_path_factory.mktemp("dashboard")
    async with mission_under_way(folder) as under_way:
        yield under_way


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncGenerator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield chromium
        await chromium.close()
