"""Thousands of schedules by `make simulate SEEDS=…`; here some, that they can be replayed, and that they can fail."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timeout(180)

HAVE_BROKEN = (29, 33, 44, 2037, 2173, 1022)
"""Seeds that once found what no other test had."""


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_no_schedule_of_crashes_delays_partitions_and_clock_jumps_breaks_an_invariant() -> None:
    done = simulate("--seed", "1000", "--seeds", "400", "--seconds", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"simulated (\d+) schedules", done.stdout)[0]) >= 10


@pytest.mark.parametrize("seed", HAVE_BROKEN)
def test_a_schedule_that_once_broke_an_invariant_keeps_all_of_them(seed: int) -> None:
    done = simulate("--seed", str(seed))
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_seed_replays_exactly() -> None:
    first, second = (simulate("--seed", "7", "--seeds", "4", "--digests").stdout.splitlines()[:4] for _ in range(2))
    assert first == second
    assert len({line.split()[1] for line in first}) == 4


@pytest.mark.parametrize(
    ("rule", "misfortunes", "violated"),
    [
        ("unfenced-journal", "freeze", "epochs are monotone|at most once"),
        ("unfenced", "withhold", "what may happen once happens at most once"),
        ("forgetful", "kill,withhold", "what may happen once happens at most once"),
        ("trusting", "kill,reset", "every outcome that a worker recorded reaches the log or stays held"),
    ],
)
def test_with_a_rule_turned_off_the_simulation_finds_a_violation_within_few_seeds(
    rule: str, misfortunes: str, violated: str
) -> None:
    done = simulate("--seeds", "150", "--without", rule, "--mix", misfortunes)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(violated, done.stdout), done.stdout
    seed = re.findall(r"noticed at seed (\d+)", done.stdout)[0]
    with_the_rule = simulate("--seed", seed, "--mix", misfortunes)
    assert with_the_rule.returncode == 0, with_the_rule.stdout + with_the_rule.stderr
