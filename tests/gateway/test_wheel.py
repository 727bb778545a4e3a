"""The wheel, away from the checkout: what it lacks cannot be found elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.gateway.test_supervisor import REPOSITORY

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(not (REPOSITORY / "dashboard" / "dist").is_dir(), reason="`make setup` builds the dashboard"),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the wheel in it, and with what the wheel depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    packages = folder / "venv" / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    zipfile.ZipFile(wheel).extractall(packages)
    # As a path, not as a place of packages: the editable install of this checkout stays out of it.
    (packages / "dependencies.pth").write_text(str(Path(pytest.__file__).parents[1]))
    return folder / "venv" / "bin" / "python"


def said_by(python: Path, folder: Path, port: Callable[[], int], *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "SKYAGENT_DATA_DIR": str(folder / "data"),
        "SKYAGENT_LISTEN": f"127.0.0.1:{port()}",
        "SKYAGENT_GATEWAY__PORT": str(port()),
        "SKYAGENT_WORKERS": '{"noop": 1}',
    }
    return subprocess.run(
        [python, *arguments], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


SERVED = """
import pathlib
from gateway.envoy.edge import DASHBOARD, GENERATED
for path in (DASHBOARD / "index.html", GENERATED / "openapi.json", GENERATED / "descriptors.binpb"):
    assert path.is_file(), path
    print(path)
"""


def test_the_wheel_brings_what_the_gateway_serves(python: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    said = said_by(python, tmp_path, free_port, "-c", SERVED)
    assert said.returncode == 0, said.stderr
    assert not [line for line in said.stdout.splitlines() if not line.startswith(str(python.parents[1]))]


def test_a_mission_runs_from_the_wheel_alone(python: Path, tmp_path: Path, free_port: Callable[[], int]) -> None:
    mission = ("run", "--template", "self_test", "--set", "steps=3")
    said = said_by(python, tmp_path, free_port, "-m", "gateway.cli", *mission)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout.splitlines()[-1])["end"]["phase"] == "RUN_PHASE_SUCCEEDED"
