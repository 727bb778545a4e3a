"""`skyagent runs replay` and `skyagent runs diff`."""

from __future__ import annotations

from google.protobuf.message import Message
from google.protobuf.text_format import MessageToString
from rich.text import Text

from gateway.cli.exits import Exit
from gateway.cli.output import console, machine_readable, plain, print_list, print_message
from gateway.client import connected
from infra.settings import load_settings
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api

STEPS = ("step", "in the one", "in the other", "attempts", "seconds")
_SHOWN_LINES = 24


async def replay(run_id: str, *, json_lines: bool) -> Exit:
    """Prints what a replay found; FAILED when an event would be another one now."""
    async with connected(load_settings()) as services:
        found = await services.runs.ReplayRun(api.ReplayRunRequest(run_id=run_id))
    if machine_readable(json_lines=json_lines):
        print_message(found)
    else:
        _show_replay(found)
    return Exit.FAILED if found.first_difference else Exit.SUCCEEDED


async def diff(one: str, other: str, *, json_lines: bool) -> Exit:
    """Prints where two runs part; FAILED when they do."""
    async with connected(load_settings()) as services:
        found = await services.runs.DiffRuns(api.DiffRunsRequest(run_id=one, other_run_id=other))
    if machine_readable(json_lines=json_lines):
        print_message(found)
    else:
        _show_diff(found)
    parted = found.HasField("first") or found.HasField("other_first") or bool(found.steps)
    return Exit.FAILED if parted else Exit.SUCCEEDED


def _show_replay(found: api.ReplayRunResponse) -> None:
    told = f"{found.decisions} decisions made again from {found.inputs} inputs"
    erased = f"; {found.erased} erased events say nothing" if found.erased else ""
    if not found.first_difference:
        console.print(Text(f"the same: {told}{erased}", "green"))
        console.print(plain(f"state {found.state_digest}", "dim"))
        return
    console.print(plain(f"event {found.first_difference} would be another one now: {found.detail}", "red"))
    console.print(plain(f"{told} before it{erased}", "dim"))
    _show_body("recorded", found.recorded)
    if found.HasField("decided"):
        _show_body("decided now", found.decided)


def _show_body(title: str, body: Message) -> None:
    lines = MessageToString(body).splitlines()
    console.print(Text(title, "bold"))
    for line in lines[:_SHOWN_LINES]:
        console.print(plain(f"  {line}"))
    if len(lines) > _SHOWN_LINES:
        console.print(plain(f"  … {len(lines) - _SHOWN_LINES} more lines; --json has all of it", "dim"))


def _show_diff(found: api.DiffRunsResponse) -> None:
    for name, run, first in (
        ("one", found.run, found.first if found.HasField("first") else None),
        ("other", found.other, found.other_first if found.HasField("other_first") else None),
    ):
        where = f"event {first.seq}: {first.text}" if first else "nothing more"
        console.print(plain(f"{name:6} {run.run_id} after {found.common} happenings in common  {where}"))
    rows = [
        (step.path, _state(step, "one"), _state(step, "other"), _numbers(step, "attempts"), _numbers(step, "seconds"))
        for step in found.steps
    ]
    rows.append(("all", *_total(found)))
    print_list([], STEPS, rows, json_lines=False)


def _state(step: api.StepDifference, which: str) -> str:
    if not step.HasField("one" if which == "one" else "other"):
        return "-"
    standing = step.one if which == "one" else step.other
    word = ev.NodeState.Name(standing.state).removeprefix("NODE_STATE_").lower()
    return f"{word}: {standing.outcome}" if standing.outcome else word


def _numbers(step: api.StepDifference, what: str) -> str:
    if what == "attempts":
        return f"{step.one.attempts} / {step.other.attempts}"
    one, other = step.one.duration, step.other.duration
    return f"{_seconds(one.seconds, one.nanos)} / {_seconds(other.seconds, other.nanos)}"


def _seconds(seconds: int, nanos: int) -> str:
    return f"{seconds + nanos / 1e9:.1f}"


def _total(found: api.DiffRunsResponse) -> tuple[str, str, str, str]:
    one, other = found.run, found.other
    words = [ev.RunPhase.Name(run.phase).removeprefix("RUN_PHASE_").lower() for run in (one, other)]
    cost = f"{one.counts.cost_microusd / 1e6:.4f} / {other.counts.cost_microusd / 1e6:.4f} USD"
    return (words[0], words[1], f"{one.counts.attempts} / {other.counts.attempts}", cost)
