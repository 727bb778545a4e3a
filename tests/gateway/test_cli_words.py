"""From the words of a command line to a mission, and from a run to an exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.cli.exits import Exit, exit_of
from gateway.cli.mission import Wish, allowed_hosts, cents, named_values, split_inputs
from gateway.cli.outcome import answers_of, exit_of_run
from infra.errors import (
    Conflict,
    DeadlineExceeded,
    Denied,
    Exhausted,
    InvalidArgument,
    NotFound,
    SkyError,
    Unauthenticated,
    Unavailable,
)
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st


@pytest.mark.parametrize(
    ("text", "amount"), [("1000", 100000), ("1000.50", 100050), ("0", 0), ("0.01", 1), ("1e3", 100000)]
)
def test_money_is_read_to_the_cent(text: str, amount: int) -> None:
    assert cents(text) == amount


@pytest.mark.parametrize("text", ["", "ten", "-1", "1.005", "NaN", "Infinity", "1,000"])
def test_what_is_no_money_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--approve-above") as refused:
        cents(text)
    assert repr(text) in refused.value.message


def test_files_and_values_are_told_apart_by_what_exists(tmp_path: Path) -> None:
    rows = tmp_path / "invoices.csv"
    rows.write_text("number\n1\n")
    files, values = split_inputs([f"rows={rows}", "list=/invoices/?q={key}", "password={{secret:clerk}}"])
    assert files == {"rows": rows}
    assert values == {"list": "/invoices/?q={key}", "password": "{{secret:clerk}}"}


def test_a_lone_file_needs_no_name(tmp_path: Path) -> None:
    rows = tmp_path / "a=b.csv"
    rows.write_text("number\n1\n")
    assert split_inputs([str(rows)]) == ({"": rows}, {})


@pytest.mark.parametrize("text", ["/no/such/file.csv", "no-such-file.csv"])
def test_a_file_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        split_inputs([text])


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large.csv"
    with large.open("wb") as file:
        file.truncate(17 * 1024 * 1024)
    with pytest.raises(InvalidArgument, match="split it"):
        split_inputs([str(large)])


@pytest.mark.parametrize(
    ("site", "named", "allowed"),
    [
        ("http://127.0.0.1:8000/admin", (), ()),
        ("http://127.0.0.1:8000/admin", ("cdn.example",), ("127.0.0.1:8000", "cdn.example")),
        ("", ("cdn.example",), ("cdn.example",)),
    ],
)
def test_hosts_that_are_named_come_beside_the_sites_own(
    site: str, named: tuple[str, ...], allowed: tuple[str, ...]
) -> None:
    wish = Wish("self_test", "", {}, {"site": site}, "auto", named, "", dry_run=False)
    assert allowed_hosts(wish) == allowed


def test_a_value_may_hold_an_equals_sign() -> None:
    assert named_values("--set", ["list=/q?a=b"]) == {"list": "/q?a=b"}


@pytest.mark.parametrize("text", ["novalue", "=x", "Upper=x"])
def test_a_value_without_a_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="INPUT=VALUE"):
        named_values("--set", [text])


@pytest.mark.parametrize(
    ("phase", "reason", "code"),
    [
        (ev.RUN_PHASE_SUCCEEDED, "", Exit.SUCCEEDED),
        (ev.RUN_PHASE_FAILED, "BROWSER_STALE", Exit.FAILED),
        (ev.RUN_PHASE_CANCELLED, "CANCELLED", Exit.FAILED),
        (ev.RUN_PHASE_FAILED, "DENIED", Exit.DENIED),
        (ev.RUN_PHASE_FAILED, "DEADLINE_PASSED", Exit.BUDGET),
        (ev.RUN_PHASE_BUDGET_EXHAUSTED, "", Exit.BUDGET),
        (ev.RUN_PHASE_WAITING, "", Exit.WAITS_FOR_PERSON),
        (ev.RUN_PHASE_PAUSED, "", Exit.WAITS_FOR_PERSON),
        (ev.RUN_PHASE_RUNNING, "", None),
        (ev.RUN_PHASE_QUEUED, "", None),
    ],
)
def test_the_exit_code_tells_how_a_run_stands(phase: ev.RunPhase.ValueType, reason: str, code: Exit | None) -> None:
    assert exit_of_run(st.RunState(phase=phase, reason=reason)) is code


def test_a_run_that_waits_tells_the_command_for_each_answer() -> None:
    state = st.RunState(run_id="R")
    state.approvals.add(approval_id="A", state=ev.APPROVAL_STATE_PENDING)
    state.approvals.add(approval_id="B", state=ev.APPROVAL_STATE_DENIED)
    state.nodes.add(state=ev.NODE_STATE_UNCERTAIN).node.node_id = "a group"
    uncertain = state.nodes.add(state=ev.NODE_STATE_UNCERTAIN, attempts=[st.AttemptRecord(attempt=1)])
    uncertain.node.node_id = "S"
    uncertain.node.step.SetInParent()
    assert answers_of(state) == ["skyagent approvals approve A", "skyagent runs resolve R S --happened"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidArgument(), Exit.USAGE),
        (NotFound("R", "m"), Exit.FAILED),
        (Conflict("R", "m"), Exit.FAILED),
        (Denied("R", "m"), Exit.DENIED),
        (Unauthenticated("R", "m"), Exit.DENIED),
        (Exhausted("R", "m"), Exit.BUDGET),
        (DeadlineExceeded("R", "m"), Exit.BUDGET),
        (Unavailable("R", "m"), Exit.UNAVAILABLE),
    ],
)
def test_every_error_has_its_exit_code(error: SkyError, code: Exit) -> None:
    assert exit_of(error) is code
