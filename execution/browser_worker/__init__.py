"""Real browsers: one Chromium a worker, one context a session, typed actions, observations in few tokens.

What survives kill -9: cookies, local storage and last addresses of every session (on disk after each navigation and
effect). What does not: what was typed and not sent. A document that was loaded again is never acted on unseen.
"""

from __future__ import annotations

from pathlib import Path

from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.kind import BrowserExecutor
from execution.browser_worker.secrets import MappingSecrets, Secret, SecretSource, secrets_of
from execution.sealing import Seal
from infra.clock import Clock
from infra.ids import Ids, system_ids
from infra.settings import Settings, environment

__all__ = ["BrowserConfig", "BrowserExecutor", "MappingSecrets", "Secret", "SecretSource", "executor"]


def executor(
    settings: Settings, folder: Path, *, clock: Clock, ids: Ids | None = None, secrets: SecretSource | None = None
) -> BrowserExecutor:
    """The browser kind for a worker. `folder` is the worker's own; secrets come from SKYAGENT_SECRET_* unless given."""
    browser = settings.browser
    config = BrowserConfig(
        folder / "browser",
        browser.executable,
        browser.flags,
        headless=browser.headless,
        hosts=settings.egress.allow,
        seal=Seal(settings.session_key_path),
    )
    return BrowserExecutor(config, secrets or secrets_of(environment()), clock, ids or system_ids(clock))
