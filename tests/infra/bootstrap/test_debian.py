from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.bootstrap.debian import is_ubuntu, missing, wanted
from infra.bootstrap.purpose import Purpose

ROOT = Path(__file__).resolve().parents[3]
# Imports first: whoever has no rights may not read this interpreter's own files either.
REFUSED = """
import os
from infra.bootstrap.action import BootstrapError
from infra.bootstrap.debian import privilege
if os.geteuid() == 0:
    os.setuid(65534)
try:
    privilege(["apt-get", "update"], ["apt-get", "install", "a b"])
except BootstrapError as error:
    print(error)
"""

on_debian = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="asks the machine's own dpkg")


@on_debian
def test_only_packages_that_dpkg_does_not_have_are_missing() -> None:
    assert missing(["dpkg", "no-such-package", "libc6"]) == ["no-such-package"]


def test_tests_want_all_that_a_run_wants() -> None:
    assert set(wanted(Purpose.RUN)) < set(wanted(Purpose.TEST))


@pytest.mark.parametrize(
    ("os_release", "ubuntu"),
    [
        ('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', True),
        ('NAME="Linux Mint"\nID=linuxmint\nID_LIKE="ubuntu debian"\n', True),
        ('NAME="Debian GNU/Linux"\nID=debian\n', False),
        ("", False),
    ],
)
def test_ubuntu_is_known_by_its_os_release(tmp_path: Path, os_release: str, *, ubuntu: bool) -> None:
    (tmp_path / "os-release").write_text(os_release)
    assert is_ubuntu(tmp_path / "os-release") is ubuntu


def test_without_root_or_sudo_the_exact_commands_are_shown(tmp_path: Path) -> None:
    said = subprocess.run(
        [sys.executable, "-c", REFUSED],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said.splitlines()[-1].strip() == "apt-get update && apt-get install 'a b'"
