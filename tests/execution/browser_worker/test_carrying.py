"""A session goes along: a fork, or another worker, begins with the cookies and the storage that a run had."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from execution.browser_worker import BrowserExecutor
from execution.sealing import Seal
from infra.errors import Precondition
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_FAILED
from skyagent.execution.v1.effect_pb2 import EFFECT_NONE
from tests.execution.browser_worker.hands import Hands, executing
from tests.execution.browser_worker.site import Site, serving
from tests.execution.browser_worker.test_crashes import log_in


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    async with serving() as running:
        yield running


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncGenerator[BrowserExecutor]:
    async with executing(tmp_path / "browser", seal=Seal(tmp_path / "keys" / "sessions.key")) as executor:
        yield executor


async def test_another_run_that_begins_with_the_session_of_a_run_is_logged_in_and_a_stranger_is_not(
    browser: BrowserExecutor, site: Site
) -> None:
    hands = Hands(browser, site.url)
    before = await hands.go("/login")
    await log_in(hands)
    after = await hands.go("/private")
    assert before.session.session_id == "default"
    told = [blob for blob in hands.blobs.kept.values() if blob.startswith(b"gAAAA")]
    assert len(told) == 2, "one before the login, one after it, and none while nothing changed"
    assert not after.HasField("session")
    taken = next(digest for digest, blob in hands.blobs.kept.items() if blob == told[-1])
    before.session.state.digest = taken
    fork = Hands(browser, site.url, blobs=hands.blobs, sessions=(before.session,))
    assert (await fork.go("/private")).browser.observation.title == "Private"
    stranger = Hands(browser, site.url)
    assert (await stranger.go("/private")).browser.observation.title != "Private"


async def test_cookies_leave_the_worker_sealed(browser: BrowserExecutor, site: Site) -> None:
    hands = Hands(browser, site.url)
    await log_in(hands)
    (cookie,) = await hands.page.context.cookies()
    assert len(cookie.get("value", "")) > 4
    assert not any(str(cookie.get("value")).encode() in blob for blob in hands.blobs.kept.values())


async def test_a_session_that_was_sealed_with_another_key_is_refused_with_what_to_do(
    browser: BrowserExecutor, site: Site, tmp_path: Path
) -> None:
    hands = Hands(browser, site.url)
    outcome = await hands.go("/form")
    foreign = Seal(tmp_path / "elsewhere" / "sessions.key")
    hands.blobs.kept[outcome.session.state.digest] = foreign.close(b"{}")
    refused = await Hands(browser, site.url, blobs=hands.blobs, sessions=(outcome.session,)).go("/form")
    assert (refused.status, refused.reason, refused.effect) == (
        OUTCOME_STATUS_FAILED,
        "SESSION_NOT_RESTORED",
        EFFECT_NONE,
    )
    assert "copy the file" in refused.message


def test_workers_that_start_together_have_one_key(tmp_path: Path) -> None:
    first, second = Seal(tmp_path / "keys" / "sessions.key"), Seal(tmp_path / "keys" / "sessions.key")
    assert second.open(first.close(b"cookies")) == b"cookies"
    assert (tmp_path / "keys" / "sessions.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(Precondition, match="another key"):
        Seal(tmp_path / "others" / "sessions.key").open(first.close(b"cookies"))
