from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.bootstrap.action import Action, BootstrapError, Doer

# Counts its own runs in a file and succeeds from the run whose number is given.
SUCCEEDS_FROM = """
import pathlib, sys
runs = pathlib.Path(sys.argv[1])
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
print("the mirror did not answer")
sys.exit(len(runs.read_text()) < int(sys.argv[2]))
"""


def fetch(runs: Path, succeeds_from: int, attempts: int = 3) -> Action:
    return Action("fetch it", [sys.executable, "-c", SUCCEEDS_FROM, str(runs), str(succeeds_from)], attempts=attempts)


@pytest.fixture
def doer(tmp_path: Path) -> Doer:
    return Doer(tmp_path / "logs" / "bootstrap.log", pause_s=0)


def test_a_download_that_fails_once_is_tried_again(tmp_path: Path, doer: Doer) -> None:
    doer.do(fetch(tmp_path / "runs", succeeds_from=2))
    assert (tmp_path / "runs").read_text() == "xx"


def test_it_gives_up_after_the_last_try_and_shows_what_was_said(tmp_path: Path, doer: Doer) -> None:
    with pytest.raises(BootstrapError, match="failed 3 times; is the network there") as caught:
        doer.do(fetch(tmp_path / "runs", succeeds_from=9))
    assert "the mirror did not answer" in str(caught.value)
    assert sys.executable in str(caught.value)
    assert (tmp_path / "runs").read_text() == "xxx"


def test_what_needs_no_network_is_tried_once(tmp_path: Path, doer: Doer) -> None:
    with pytest.raises(BootstrapError, match=r"fetch it: failed\."):
        doer.do(fetch(tmp_path / "runs", succeeds_from=2, attempts=1))
    assert (tmp_path / "runs").read_text() == "x"


def test_every_action_says_one_line_when_it_begins_and_one_when_it_ends(
    tmp_path: Path, doer: Doer, capfd: pytest.CaptureFixture[str]
) -> None:
    doer.do(fetch(tmp_path / "runs", succeeds_from=1))
    begun, done = capfd.readouterr().out.splitlines()
    assert begun == "bootstrap: fetch it …"
    assert done.startswith("bootstrap: done in ")
