"""A short campaign of real processes; the long ones are `make chaos KILLS=1000`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("nodes", "kills"), [(1, 3), (2, 2)])
def test_a_short_campaign_of_kills_loses_nothing_and_ships_nothing_twice(
    tmp_path: Path, nodes: int, kills: int
) -> None:
    options = ["--kills", str(kills), "--nodes", str(nodes), "--no-controls", "--no-langgraph"]
    command = [sys.executable, "-m", "tests.chaos.campaign", *options]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "build/chaos/chaos.json").read_text())
    assert figures["kills"] >= kills
    assert figures["orders"] > 0
    assert (figures["lost"], figures["twice"], figures["orphans"], figures["violations"]) == (0, 0, 0, [])
