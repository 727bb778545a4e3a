"""Real browsers: one Chromium a worker, one context a session, typed actions, observations in few tokens.

What survives kill -9: cookies, local storage and last addresses of every session (on disk after each navigation and
effect). What does not: what was typed and not sent. A document that was loaded again is never acted on unseen.
"""

from collections.abc import Mapping
from pathlib import Path

from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.executor import BrowserExecutor
from execution.browser_worker.secrets import MappingSecrets, Secret, SecretSource
from infra.clock import Clock
from infra.ids import Ids
from infra.settings import Settings

__all__ = ["BrowserConfig", "BrowserExecutor", "MappingSecrets", "Secret", "SecretSource", "executor"]


def executor(
    settings: Settings, folder: Path, *, secrets: Mapping[str, str], clock: Clock, ids: Ids
) -> BrowserExecutor:
    """The browser kind for a worker. `folder` is the worker's own (WorkerSettings.folder); secrets are by name."""
    browser = settings.browser
    config = BrowserConfig(folder / "browser", browser.executable, browser.flags, headless=browser.headless)
    known = {name: Secret(value) for name, value in secrets.items()}
    return BrowserExecutor(config, MappingSecrets(known), clock, ids)
