"""The proof on a mesh of straw: it holds when the records are entered with care, and fails when they are not."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from evals.end_to_end.ending import print_ending
from evals.end_to_end.outcome import result_of, shortcomings
from evals.end_to_end.person import Beforehand
from evals.end_to_end.rehearsal import Conduct, rehearsal
from evals.end_to_end.stage import Cast, performed
from evals.sites import ledger
from infra.clock import SystemClock


def cast(folder: Path, conduct: Conduct, *, granted: bool = True) -> Cast:
    clock = SystemClock()
    return Cast(
        folder=folder,
        seed=7,
        account=ledger.Account("clerk", "correct horse", "key"),
        person=Beforehand(granted),
        open_mesh=lambda _folder, account: rehearsal(conduct, account, clock),
        console=Console(file=io.StringIO(), width=160),
        clock=clock,
    )


async def test_care_is_rewarded_with_a_result_a_report_and_a_table(tmp_path: Path) -> None:
    played = cast(tmp_path, Conduct.CAREFUL)
    async with performed(played) as proven:
        print_ending(proven, played.console, "")
    assert shortcomings(proven.evidence) == []
    assert isinstance(played.console.file, io.StringIO)
    *table, last = played.console.file.getvalue().splitlines()
    result = json.loads(last.removeprefix("RESULT "))
    assert result | {"seconds": 0} == {
        "records": 12,
        "present": 12,
        "duplicates": 0,
        "kills": 4,
        "false_saved_caught": 1,
        "approvals": 1,
        "model_calls": 0,
        "seconds": 0,
        "report": str(tmp_path / "report.html"),
    }
    assert sum("✓ once, every field right" in line for line in table) == 12
    report = (tmp_path / "report.html").read_text()
    assert "The proof holds" in report
    assert all(number in report for number in proven.rows)
    assert report.count("no: a lie") == 1


async def test_a_no_keeps_the_record_out_and_the_proof_holds(tmp_path: Path) -> None:
    async with performed(cast(tmp_path, Conduct.CAREFUL, granted=False)) as proven:
        pass
    assert shortcomings(proven.evidence) == []
    result = result_of(proven.evidence)
    assert (result.present, result.approvals) == (11, 0)


async def test_a_clerk_who_believes_the_page_is_found_out(tmp_path: Path) -> None:
    async with performed(cast(tmp_path, Conduct.BELIEVING)) as proven:
        lied_to = proven.evidence.lies[0]
    assert f"{lied_to} is not in the database" in shortcomings(proven.evidence)
    assert result_of(proven.evidence).false_saved_caught == 0
    assert "The proof failed" in (tmp_path / "report.html").read_text()


async def test_a_clerk_who_does_not_wait_for_what_is_on_its_way_is_found_out(tmp_path: Path) -> None:
    async with performed(cast(tmp_path, Conduct.IMPATIENT)) as proven:
        pass
    assert result_of(proven.evidence).duplicates > 0


async def test_a_clerk_who_does_not_ask_is_found_out(tmp_path: Path) -> None:
    async with performed(cast(tmp_path, Conduct.UNASKING)) as proven:
        pass
    assert shortcomings(proven.evidence) == ["0 questions were asked, not 1"]


REHEARSE = """
import sys
from pathlib import Path
from evals.end_to_end.proof import Options, run
from evals.end_to_end.rehearsal import Conduct, rehearsal
from infra.clock import SystemClock
options = Options(approve=sys.argv[2], seed=None, folder=Path(sys.argv[1]), stay_s=0)
sys.exit(run(options, lambda folder, account: rehearsal(Conduct.CAREFUL, account, SystemClock())))
"""


def children_of(parent: int) -> list[int]:
    """Its direct children (proc_pid_children(5))."""
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_interrupted_proof_leaves_no_process_behind(number: signal.Signals, tmp_path: Path) -> None:
    proof = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", REHEARSE, str(tmp_path), "yes"), stdout=subprocess.PIPE, start_new_session=True
    )
    assert proof.stdout is not None
    while b"kill -9" not in await proof.stdout.readline():
        assert not proof.stdout.at_eof()
    children = children_of(proof.pid)
    assert len(children) >= 5
    proof.send_signal(number)
    await proof.communicate()
    assert proof.returncode == 130
    assert alive(children) == []


async def test_without_an_answer_and_a_terminal_it_refuses_before_anything_starts(tmp_path: Path) -> None:
    proof = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", REHEARSE, str(tmp_path / "new"), ""), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    output, _ = await proof.communicate()
    assert proof.returncode == 2
    assert b"set APPROVE=yes or no" in output
    assert not (tmp_path / "new").exists()
