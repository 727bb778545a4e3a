"""What the conformance tool says of our own worker, and of workers that each break one rule."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from gateway.conformance.bench import Bench
from gateway.conformance.checks import CHECKS
from gateway.conformance.operator import Place
from gateway.conformance.report import as_html, as_json
from gateway.conformance.trial import Asked, trial
from gateway.conformance.verdicts import Check, Line, Report, Result, Verdict
from infra.clock import SystemClock
from infra.errors import InvalidArgument
from infra.ids import system_ids
from infra.processes import MARKER_VARIABLE, find_marked
from infra.settings import environment

REPOSITORY = Path(__file__).resolve().parents[2]
SKYAGENT = str(Path(sys.executable).parent / "skyagent")
CLOCK = SystemClock()
IDS = system_ids(CLOCK)
CONNECT, WITNESS = "SKYAGENT_WORKER__CONNECT", "SKYAGENT_WORKER__WITNESS"
PATIENCE = 30.0
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

pytestmark = pytest.mark.timeout(240)


class Silent:
    """Keeps where the worker has to dial."""

    def __init__(self) -> None:
        self.place: asyncio.Future[Place] = asyncio.get_running_loop().create_future()

    def ready(self, place: Place) -> None:
        self.place.set_result(place)

    def begins(self, check: Check[Bench], number: int, of: int) -> None:
        pass

    def ended(self, result: Result) -> None:
        pass


class Shown:
    """A terminal, and what it has shown."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._text = ""
        self._more = asyncio.Event()

    async def sees(self, pattern: str) -> re.Match[str]:
        """Where the pattern is, once it is shown."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := re.search(pattern, self._text)) is None:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            pytest.fail(f"{pattern} was not shown, but: {self._text}")
        return found

    def types(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def read(self) -> None:
        try:
            self._text += STYLE.sub("", os.read(self._descriptor, 65536).decode(errors="replace"))
        except OSError:  # nobody has it open any more
            asyncio.get_running_loop().remove_reader(self._descriptor)
        self._more.set()


@contextmanager
def terminal() -> Generator[tuple[int, Shown]]:
    """A terminal for a program, and the view of whoever sits before it."""
    ours, theirs = pty.openpty()
    shown, loop = Shown(ours), asyncio.get_running_loop()
    loop.add_reader(ours, shown.read)
    try:
        yield theirs, shown
    finally:
        loop.remove_reader(ours)
        os.close(theirs)
        os.close(ours)


@asynccontextmanager
async def program(
    *command: str, env: Mapping[str, str], stdin: int | None = None, stdout: int | None = None
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process that does not outlive the block."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment() | dict(env), stdin=stdin, stdout=stdout, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def tried(folder: Path, command: Sequence[str], *only: str) -> Report:
    return await trial(Asked(command=command, only=only), folder, Silent(), clock=CLOCK, ids=IDS)


def shown(report: Report) -> str:
    return "\n".join(f"{each.name}: {each.verdict} {each.reason}" for each in report.results) + report.worker_log


async def test_our_worker_keeps_every_rule(tmp_path: Path) -> None:
    report = await tried(tmp_path, [SKYAGENT, "worker", "noop"])
    assert report.conforms, shown(report)
    assert [each.name for each in report.results if each.verdict is not Verdict.PASS] == ["exact-bytes"], shown(report)
    assert len(report.results) == len(CHECKS)


@pytest.mark.parametrize(
    ("fault", "found_by"),
    [
        ("forgetful", {"killed-while-running", "killed-when-done", "killed-keeps-keys"}),
        ("trusting", {"held-until-recorded"}),
        ("unfenced", {"lower-fence-refused", "higher-fence-adopted"}),
        ("tireless", {"lease-from-asking"}),
        ("eager", {"result-refused"}),
    ],
)
async def test_a_worker_that_breaks_one_rule_is_found_out_by_its_checks(
    tmp_path: Path, fault: str, found_by: set[str]
) -> None:
    command = [sys.executable, "-m", "tests.conformance.sabotaged", fault]
    report = await tried(tmp_path, command, "hello-first", "step", *found_by)
    assert {each.name for each in report.failed} == found_by, shown(report)
    assert not report.conforms


async def test_a_command_that_ends_at_once_fails_and_nothing_else_is_tried(tmp_path: Path) -> None:
    report = await tried(tmp_path, ["false"])
    first, *rest = report.results
    assert (first.verdict, first.reason) == (Verdict.FAIL, "the worker ended by itself with exit code 1")
    assert {(each.verdict, each.tried) for each in rest} == {(Verdict.SKIP, False)}


async def test_what_only_a_restart_shows_is_not_tried_on_a_worker_that_somebody_else_runs(tmp_path: Path) -> None:
    asked, progress = Asked(only=("hello-first", "step", "restart")), Silent()
    async with asyncio.TaskGroup() as group:
        trying = group.create_task(trial(asked, tmp_path, progress, clock=CLOCK, ids=IDS))
        place = await progress.place
        env = {name: value for name, value in place.variables().items() if value}
        async with program(SKYAGENT, "worker", "noop", "--id", "by-hand", "--token-file", "/dev/null", env=env):
            report = await trying
    verdicts = {each.name: (each.verdict, each.tried) for each in report.results}
    assert verdicts["hello-first"] == verdicts["step"] == (Verdict.PASS, True), shown(report)
    assert verdicts["restart"] == (Verdict.SKIP, False)
    assert not report.failed
    assert not report.conforms


async def test_a_person_who_started_the_worker_is_asked_to_kill_it_and_to_start_it_again(tmp_path: Path) -> None:
    with terminal() as (theirs, shown):
        asked = (SKYAGENT, "worker", "conformance", "127.0.0.1:0", "--only", "hello-first", "--only", "restart")
        async with program(*asked, stdin=theirs, stdout=theirs, env={"COLUMNS": "200", "TERM": "xterm"}) as tool:
            told = await shown.sees(" ".join(rf"{name}=(?P<{name}>\S+)" for name in (CONNECT, WITNESS)) + r"\s")
            command = (SKYAGENT, "worker", "noop", "--id", "by-hand", "--token-file", "/dev/null")
            env = told.groupdict() | {"SKYAGENT_DATA_DIR": str(tmp_path)}
            async with program(*command, env=env) as first:
                await shown.sees("please end the worker with kill -9, then press Enter")
                first.kill()
                await first.wait()
                shown.types("\n")
            await shown.sees("please start the worker again, with the same journal, then press Enter")
            async with program(*command, env=env):
                shown.types("\n")
                await shown.sees("conforms: 2 passed")
                assert await tool.wait() == 0


async def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    marker = IDS.uuid()
    command = (SKYAGENT, "worker", "conformance", "--only", "hello-first", "--only", "one-holder")
    env = {MARKER_VARIABLE: marker, "TMPDIR": str(tmp_path)}
    async with program(*command, "--", SKYAGENT, "worker", "noop", env=env, stdout=asyncio.subprocess.PIPE) as tool:
        assert tool.stdout is not None
        assert "ready" in json.loads(await tool.stdout.readline())
        assert json.loads(await tool.stdout.readline())["check"]["verdict"] == "PASS"
        tool.send_signal(signal.SIGINT)
        assert await tool.wait() == 130
    assert find_marked(marker) == []
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


async def test_a_check_that_there_is_not_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="'heart' is no check; choose from hello-first"):
        await tried(tmp_path, ["false"], "heart")


def test_a_report_holds_the_evidence_and_shows_it_as_text() -> None:
    seen = Line(0.5, "#1 ← <b>hello</b>")
    result = Result(
        "step", "A rule.", required=True, verdict=Verdict.FAIL, reason="a < b", seconds=1.0, evidence=[seen]
    )
    report = Report("worker & co", 0, [result], "log")
    page = as_html(report)
    assert "worker &amp; co does not conform" in page
    assert "a &lt; b" in page
    assert "&lt;b&gt;hello&lt;/b&gt;" in page
    assert json.loads(as_json(report))["checks"][0]["evidence"] == [{"at": 0.5, "text": seen.text}]


def test_the_specification_names_every_check_and_no_other() -> None:
    page = (REPOSITORY / "docs" / "workers" / "protocol.md").read_text()
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert named == {check.name for check in CHECKS}
