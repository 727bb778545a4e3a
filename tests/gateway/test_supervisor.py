"""A mesh of real processes, killed and stopped in every way that a day brings."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.supervisor.board import STATUS_FILE, Board, Mesh, Part, State, read_mesh
from gateway.supervisor.keeper import Program
from gateway.supervisor.leftovers import marker_of
from gateway.supervisor.live import running
from gateway.supervisor.mesh import running_mesh
from gateway.supervisor.programs import CONTROL_PLANE, ENVOY, programs_of
from gateway.supervisor.readiness import answers
from gateway.supervisor.readiness import gateway as ready_gateway
from infra.clock import SystemClock
from infra.errors import Precondition
from infra.ids import system_ids
from infra.processes import alive, find_marked, process_id
from infra.settings import GatewaySettings, Settings, split_address

CLOCK = SystemClock()
REPOSITORY = Path(__file__).parents[2]
PLANE = (sys.executable, "-m", "tests.gateway.plane")


@pytest.fixture
def settings(tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    return Settings(
        data_dir=tmp_path / "data",
        listen=f"127.0.0.1:{free_port()}",
        gateway=GatewaySettings(port=free_port()),
        workers={},
        drain_grace=1.0,
    )


def programs(settings: Settings, *plane: str) -> tuple[Program, ...]:
    """The real ones, but for what the control plane's services decide."""
    control, *others = programs_of(settings, CLOCK)
    return (Program(CONTROL_PLANE, plane or PLANE, control.ready, control.port, control.grace), *others)


@asynccontextmanager
async def ready_mesh(settings: Settings) -> AsyncGenerator[Board]:
    async with running_mesh(settings, programs(settings), clock=CLOCK, ids=system_ids(CLOCK)) as board:
        await board.until_ready()
        yield board


async def next_change(board: Board, name: str, state: State) -> Part:
    """The part, when it comes into that state the next time."""
    changed: asyncio.Future[Part] = asyncio.get_running_loop().create_future()

    def note(part: Part) -> None:
        if part.name == name and part.state is state and not changed.done():
            changed.set_result(part)

    board.on_change(note)
    return await changed


async def test_a_mesh_becomes_ready_and_says_where(settings: Settings) -> None:
    async with ready_mesh(settings) as board:
        mesh = read_mesh(settings.run_dir / STATUS_FILE)
        assert mesh == board.mesh
        assert await answers("127.0.0.1", settings.gateway.port)
        assert [(part.name, part.state) for part in board.mesh.parts] == [
            (CONTROL_PLANE, State.READY),
            (ENVOY, State.READY),
        ]


async def test_nothing_of_a_mesh_outlives_it(settings: Settings) -> None:
    async with ready_mesh(settings) as board:
        children = [process_id(part.pid) for part in board.mesh.parts]
    assert not any(child and alive(child) for child in children)
    assert not (settings.run_dir / STATUS_FILE).exists()
    assert not list((settings.run_dir / "pids").iterdir())


@pytest.mark.parametrize("name", [CONTROL_PLANE, ENVOY])
async def test_a_killed_part_is_back_and_the_gateway_answers_again(settings: Settings, name: str) -> None:
    async with ready_mesh(settings) as board:
        before = board.part(name).pid
        async with asyncio.TaskGroup() as group:
            back = group.create_task(next_change(board, name, State.READY))
            os.kill(before, signal.SIGKILL)
        assert back.result().pid not in (0, before)
        assert back.result().restarts == 1
        # A control plane that is back is found by Envoy when it tries again, not at the same moment.
        await ready_gateway("127.0.0.1", settings.gateway.port, CLOCK)(back.result().pid)


async def test_status_never_calls_a_dead_part_ready(settings: Settings) -> None:
    async with ready_mesh(settings) as board:
        stale = board.mesh
        os.kill(board.part(ENVOY).pid, signal.SIGKILL)
        await next_change(board, ENVOY, State.STARTING)
        (settings.run_dir / STATUS_FILE).write_text(_as_json(stale))
        seen = running(settings)
        assert seen is not None
        assert not seen.ready


async def test_a_second_up_on_the_same_data_is_refused_by_name(settings: Settings) -> None:
    async with ready_mesh(settings):
        with pytest.raises(Precondition, match=rf"process {os.getpid()} already runs the mesh") as refused:
            async with ready_mesh(settings):
                pytest.fail("two meshes on one data directory")
    assert refused.value.reason == "ALREADY_UP"


@pytest.mark.parametrize("which", ["gateway", "control"])
async def test_a_taken_port_is_one_clear_error_with_the_fix(settings: Settings, which: str) -> None:
    port = settings.gateway.port if which == "gateway" else split_address(settings.listen)[1]
    variable = "SKYAGENT_GATEWAY__PORT" if which == "gateway" else "SKYAGENT_LISTEN"
    with socket.create_server(("127.0.0.1", port)), pytest.raises(Precondition) as taken:
        async with ready_mesh(settings):
            pytest.fail("it cannot have started")
    assert taken.value.reason == "PORT_TAKEN"
    assert f"process {os.getpid()}" in taken.value.message
    assert variable in taken.value.message


async def test_a_part_that_cannot_start_ends_everything_and_is_quoted(settings: Settings) -> None:
    broken = programs(settings, *PLANE, "broken")
    with pytest.raises(Precondition, match="the journal is corrupt") as failed:
        async with running_mesh(settings, broken, clock=CLOCK, ids=system_ids(CLOCK)) as board:
            await board.until_ready()
    assert failed.value.metadata["name"] == CONTROL_PLANE
    assert not find_marked(marker_of(settings))


async def test_a_part_that_keeps_dying_is_called_by_its_name_and_quoted(settings: Settings, tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text("import os, signal; print('I cannot go on', flush=True); os.kill(os.getpid(), signal.SIGKILL)")

    async def never(_: int) -> None:
        await asyncio.Event().wait()

    dying = Program("dying", (sys.executable, str(script)), never)
    async with running_mesh(settings, (dying,), clock=CLOCK, ids=system_ids(CLOCK)) as board:
        part = await next_change(board, "dying", State.LOOPING)
        assert "killed by SIGKILL" in part.detail
        assert "I cannot go on" in part.detail


async def test_a_killed_up_leaves_nothing_that_the_next_does_not_end(settings: Settings) -> None:
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.gateway.supervisor_alone",
        settings.model_dump_json(),
        stdout=asyncio.subprocess.PIPE,
    )
    assert supervisor.stdout is not None
    pids = json.loads(await supervisor.stdout.readline())
    children = [process_id(pid) for pid in pids]
    assert all(child and alive(child) for child in children)
    supervisor.kill()
    await supervisor.wait()
    async with ready_mesh(settings):
        assert not any(child and alive(child) for child in children)


def _as_json(mesh: Mesh) -> str:
    return json.dumps(
        {
            "pid": mesh.pid,
            "started_ms": mesh.started_ms,
            "ready": True,
            "address": mesh.address,
            "parts": [{"name": part.name, "state": "ready", "pid": part.pid} for part in mesh.parts],
        }
    )
