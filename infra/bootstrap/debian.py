"""Debian packages: which are missing, and how to get them with as few rights as possible."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from infra.bootstrap.action import FOR_DOWNLOADS, Action, BootstrapError, Doer, say
from infra.bootstrap.purpose import Purpose

FONTS = ("fontconfig", "fonts-dejavu-core", "fonts-liberation", "fonts-noto-color-emoji")
LIBRARIES = ("libatomic1",)  # Node, which drives the browser and builds the dashboard.
CHROMIUM = ("chromium", "chromium-sandbox")
FOR_TESTS = ("curl", "git")
APT = ("apt-get", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300")


def ensure(purpose: Purpose, doer: Doer) -> None:
    """Installs what is missing; raises BootstrapError with the exact command when this user may not."""
    if shutil.which("dpkg-query") is None:
        say("this is neither Debian nor Ubuntu: a Chromium, its fonts and libatomic are taken to be there")
        return
    packages = missing(wanted(purpose))
    if not packages:
        return
    install = ["install", "--yes", "--no-install-recommends", *packages]
    right = privilege(["apt-get", "update"], ["apt-get", *install])
    apt = [*right, "env", "DEBIAN_FRONTEND=noninteractive", *APT]
    doer.do(Action("update the list of Debian packages", [*apt, "update"], attempts=FOR_DOWNLOADS))
    title = f"install Debian packages: {' '.join(packages)}"
    doer.do(Action(title, [*apt, *install], attempts=FOR_DOWNLOADS))


def wanted(purpose: Purpose) -> list[str]:
    """The packages that this purpose needs on this machine."""
    packages = [*FONTS, *LIBRARIES]
    if not is_ubuntu():  # Ubuntu's chromium is a snap, which cannot be driven; see browser.py.
        packages += CHROMIUM
    if not can_make_environments():
        packages.append("python3-venv")
    if purpose >= Purpose.TEST:
        packages += FOR_TESTS
    return packages


def missing(packages: Sequence[str]) -> list[str]:
    """Those of the packages that dpkg does not have installed."""
    query = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *packages]
    listing = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    installed = {line.split()[0] for line in listing.splitlines() if line.endswith(" installed")}
    return [package for package in packages if package not in installed]


def is_ubuntu(os_release: Path = Path("/etc/os-release")) -> bool:
    """Whether this is Ubuntu or made from it."""
    if not os_release.is_file():
        return False
    fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    return "ubuntu" in f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()


def can_make_environments() -> bool:
    """Whether this Python can make a venv with pip in it; Debian keeps that apart, in python3-venv."""
    probe = [sys.executable, "-c", "import ensurepip, venv"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def privilege(*commands: Sequence[str]) -> list[str]:
    """What to put before commands that root must run; raises BootstrapError, which shows them, when there is no way."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo") is not None and (sys.stdin.isatty() or sudo_asks_nothing()):
        return ["sudo"]
    shown = " && ".join(shlex.join(command) for command in commands)
    raise BootstrapError(f"root must run this once, then try again:\n    {shown}")


def sudo_asks_nothing() -> bool:
    """Whether sudo works here without a password, so that nothing hangs where nobody can type one."""
    return subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False).returncode == 0
