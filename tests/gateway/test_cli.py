"""The command line as a process, against a mesh of real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.supervisor.board import Board, State
from gateway.supervisor.mesh import running_mesh
from gateway.supervisor.programs import CONTROL_PLANE, ENVOY
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import GatewaySettings, Settings
from tests.gateway.plane import DENIED, FAILED, MISSION, RUN, SLOW, SLOW_EVENTS
from tests.gateway.test_supervisor import REPOSITORY, next_change, programs

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True, slots=True)
class Said:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, dict[str, str]]]:
        """What was printed, as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True, slots=True)
class Shell:
    """A place to type commands in."""

    settings: Settings
    board: Board

    async def skyagent(self, *arguments: str) -> Said:
        """Runs a command to its end."""
        return await self.end(await self.start(*arguments))

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Starts a command."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", *arguments),
            env=environment_for(self.settings),
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def end(self, process: asyncio.subprocess.Process) -> Said:
        """Its exit code and what it printed."""
        out, err = await process.communicate()
        return Said(process.returncode or 0, out.decode(), err.decode())


def environment_for(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "SKYAGENT_DATA_DIR": str(settings.data_dir),
        "SKYAGENT_LISTEN": settings.listen,
        "SKYAGENT_GATEWAY__PORT": str(settings.gateway.port),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shell(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> AsyncGenerator[Shell]:
    """A shell beside a ready mesh whose services are those of plane.py."""
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("cli") / "data",
        listen=f"127.0.0.1:{free_port()}",
        gateway=GatewaySettings(port=free_port()),
        workers={},
        drain_grace=1.0,
    )
    clock = SystemClock()
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    async with running_mesh(settings, programs(settings), clock=clock, ids=system_ids(clock)) as board:
        await board.until_ready()
        yield Shell(settings, board)


async def test_a_watch_prints_every_event_once_and_ends_with_the_runs_own_code(shell: Shell) -> None:
    said = await shell.skyagent("runs", "watch", RUN)
    assert said.code == 0
    assert [line["event"]["seq"] for line in said.lines if "event" in line] == ["1", "2", "3", "4", "5"]
    assert said.lines[-1]["end"]["phase"] == "RUN_PHASE_SUCCEEDED"


@pytest.mark.parametrize(("run", "code"), [(FAILED, 1), (DENIED, 4)])
async def test_a_run_that_did_not_succeed_is_told_by_the_exit_code(shell: Shell, run: str, code: int) -> None:
    assert (await shell.skyagent("runs", "watch", run)).code == code


@pytest.mark.parametrize("name", [ENVOY, CONTROL_PLANE])
async def test_a_watch_goes_on_without_a_gap_when_what_is_between_is_killed(shell: Shell, name: str) -> None:
    watching = await shell.start("runs", "watch", SLOW, "--json")
    assert watching.stdout is not None
    first = await watching.stdout.readline()
    async with asyncio.TaskGroup() as group:
        group.create_task(next_change(shell.board, name, State.READY))
        os.kill(shell.board.part(name).pid, signal.SIGKILL)
    said = await shell.end(watching)
    lines = [json.loads(first), *said.lines]
    assert [int(line["event"]["seq"]) for line in lines if "event" in line] == list(range(1, SLOW_EVENTS + 1))
    assert {str(line["link"]) for line in lines if "link" in line} == {"lost", "back"}
    assert said.code == 0


async def test_an_interrupted_watch_ends_with_130(shell: Shell) -> None:
    watching = await shell.start("runs", "watch", SLOW)
    assert watching.stdout is not None
    await watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    said = await shell.end(watching)
    assert (said.code, said.err) == (130, "")


async def test_a_mission_that_does_not_exist_is_one_clear_error(shell: Shell) -> None:
    said = await shell.skyagent("missions", "get", MISSION)
    assert said.code == 1
    assert said.err == f"skyagent: mission {MISSION!r} does not exist [MISSION_NOT_FOUND]\n"


async def test_a_bad_id_is_a_usage_error_that_names_the_field(shell: Shell) -> None:
    said = await shell.skyagent("missions", "get", "nonsense")
    assert said.code == 2
    assert "mission_id" in said.err


async def test_status_names_every_process(shell: Shell) -> None:
    said = await shell.skyagent("status", "--json")
    status = json.loads(said.out)
    assert (said.code, status["ready"]) == (0, True)
    assert {part["name"]: part["pid"] for part in status["parts"]} == {
        name: shell.board.part(name).pid for name in (CONTROL_PLANE, ENVOY)
    }


async def test_a_second_up_is_refused_with_the_pid(shell: Shell) -> None:
    said = await shell.skyagent("up")
    assert said.code == 1
    assert f"process {os.getpid()} already runs the mesh" in said.err


async def test_a_second_up_in_the_background_is_refused_too(shell: Shell) -> None:
    said = await shell.skyagent("up", "--detach")
    assert said.code == 1
    assert f"process {os.getpid()} already runs the mesh" in said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("run",), "--goal"),
        (("run", "--template", "x", "--input", "/no/such.csv"), "/no/such.csv"),
        (("run", "--goal", "x", "--set", "novalue"), "novalue"),
        (("run", "--goal", "x", "--runtime", "moon"), "moon"),
        (("serve", "nonsense"), "nonsense"),
        (("worker", "nonsense"), "nonsense"),
        (("worker", "token", "Not_A_Name"), "'Not_A_Name' is no name of a worker"),
        (("worker", "conformance", "--only", "heart", "--", "true"), "'heart' is no check"),
        (("worker", "conformance", "--report", "seen.pdf", "--", "true"), "must end in .html or .json"),
        (("worker", "conformance", "--listen", "nowhere", "--", "true"), "'nowhere' is not host:port"),
        (("policy", "check", "/no/such.json"), "/no/such.json"),
        (("nonsense",), "nonsense"),
        (("run", "--goal", os.fsdecode(b"caf\xe9")), r"argument 3: b'caf\xe9' is not UTF-8"),
    ],
)
async def test_wrong_usage_is_exit_code_2_and_names_what_is_wrong(
    shell: Shell, arguments: tuple[str, ...], told: str
) -> None:
    said = await shell.skyagent(*arguments)
    assert said.code == 2
    assert told in said.err


async def test_without_a_mesh_a_command_says_how_to_start_one(
    shell: Shell, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    alone = Shell(Settings(data_dir=tmp_path, gateway=GatewaySettings(port=free_port())), shell.board)
    said = await alone.skyagent("runs", "ls")
    assert said.code == 69
    assert "skyagent up" in said.err


async def test_down_without_a_mesh_is_calm(shell: Shell, tmp_path: Path) -> None:
    alone = Shell(Settings(data_dir=tmp_path), shell.board)
    said = await alone.skyagent("down")
    assert (said.code, said.out) == (0, "nothing was running\n")


async def test_a_bad_setting_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYAGENT_LOG__LEVEL", "loud")
    said = await shell.skyagent("status")
    assert said.code == 2
    assert "SKYAGENT_LOG__LEVEL" in said.err
