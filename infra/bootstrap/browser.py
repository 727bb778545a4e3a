"""A Chromium that can be driven. Debian packages one; Ubuntu's is a snap, so there Playwright's build is taken."""

import shutil
import subprocess
from pathlib import Path

from infra.bootstrap.action import FOR_DOWNLOADS, Action, BootstrapError, Doer
from infra.bootstrap.debian import is_ubuntu, privilege
from infra.bootstrap.python import Environment

NAMES = ("chromium", "google-chrome-stable", "google-chrome")


def ensure(environment: Environment, doer: Doer) -> None:
    """Fetches a browser where the distribution has none, and puts it beside the environment's programs."""
    link = environment.folder / "bin" / "chromium"
    if link.exists() or not is_ubuntu() or any(shutil.which(name) for name in NAMES):
        return
    playwright = str(environment.folder / "bin" / "playwright")
    doer.do(Action("fetch Playwright's Chromium", [playwright, "install", "chromium"], attempts=FOR_DOWNLOADS))
    libraries = [*privilege([playwright, "install-deps", "chromium"]), playwright, "install-deps", "chromium"]
    doer.do(Action("install the libraries it needs", libraries, attempts=FOR_DOWNLOADS))
    link.unlink(missing_ok=True)
    link.symlink_to(executable(environment))


def executable(environment: Environment) -> Path:
    """Where Playwright put its Chromium."""
    ask = "from playwright.sync_api import sync_playwright as p\nwith p() as it: print(it.chromium.executable_path)"
    told = subprocess.run([str(environment.python), "-c", ask], capture_output=True, text=True, check=False)
    path = Path(told.stdout.strip())
    if told.returncode != 0 or not path.is_file():
        raise BootstrapError(f"Playwright does not say where its Chromium is: {told.stderr.strip()[-500:]}")
    return path
