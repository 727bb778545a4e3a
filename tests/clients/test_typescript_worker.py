"""A worker that is not ours in anything but the contracts: TypeScript, grpc-js, a journal in node:sqlite."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.conformance.checks import CHECKS
from gateway.conformance.operator import Place
from gateway.conformance.plane import plane
from gateway.conformance.stream import Stream, Terms
from gateway.conformance.transcript import Transcript
from gateway.conformance.witness import witness
from infra.clock import SystemClock
from infra.ids import system_ids
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.tool_pb2 import ToolAction
from tests.clients.mesh import PROGRAMS, REPOSITORY, Up, installed, mesh, output, with_programs

SOURCE = REPOSITORY / "docs" / "workers" / "typescript"
STEPS = 200
CLOCK = SystemClock()
IDS = system_ids(CLOCK)
NOTHING_POSTED = b""
LARGEST = 1000  # lines: it is there to be read

pytestmark = [pytest.mark.timeout(240), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its packages and messages, checked by the strict compiler."""
    folder = await installed(SOURCE, tmp_path_factory.mktemp("typescript") / "worker")
    await output(folder / "node_modules" / ".bin" / "tsc", cwd=folder)
    return folder / "src" / "main.ts"


async def test_a_worker_written_from_the_contracts_keeps_every_rule(program: Path, tmp_path: Path) -> None:
    said = await output(
        *(PROGRAMS / "skyagent", "worker", "conformance", "--report", tmp_path / "report.html"),
        *("--", PROGRAMS / "node", program),
        cwd=tmp_path,
    )
    checks = [line["check"] for line in map(json.loads, said.splitlines()) if "check" in line]
    assert [check["name"] for check in checks] == [check.name for check in CHECKS]
    assert {check["verdict"] for check in checks} == {"PASS"}
    assert (tmp_path / "report.html").read_text().count("class=PASS") == len(CHECKS)


async def test_it_does_the_steps_of_a_real_mesh_and_outlives_kill_9(program: Path, tmp_path: Path) -> None:
    async with mesh(tmp_path / "data", workers="{}") as up:
        token = await output(PROGRAMS / "skyagent", "worker", "token", "ts-1", "--json", cwd=tmp_path, env=up.env)
        assert json.loads(token)["connect"] == up.control
        told = dict(up.env) | {"SKYAGENT_WORKER__ID": "ts-1", "SKYAGENT_WORKER__CONNECT": up.control}
        async with working(program, told) as first, self_test(up) as events:
            kinds = [kind async for kind in until(events, "stepFinished")]
            first.kill()
            assert await first.wait() == -signal.SIGKILL
            async with working(program, told) as second:
                kinds += [kind async for kind in until(events, "runFinished")]
            assert second.returncode == 0
    assert kinds.count("stepValidated") == STEPS


async def test_its_tool_reads_what_the_mission_may_reach_and_nothing_else(program: Path, tmp_path: Path) -> None:
    transcript = Transcript(CLOCK)
    async with witness(transcript) as site, plane("127.0.0.1:0", "", CLOCK, transcript) as control:
        site.answer(NOTHING_POSTED, b"<h1>a page</h1>")
        (tmp_path / "token").touch()
        place = Place(control.address, "ts-1", tmp_path / "token", tmp_path, "")
        async with working(program, place.variables()):
            stream = await control.dialled(30)
            stream.welcome(Terms())
            page, refused, unknown = [
                (await tool_called(stream, name, site.url, hosts)).outcome
                for name, hosts in (("http.get", [site.url.split("/")[2]]), ("http.get", ["example.com"]), ("rm", []))
            ]
    assert (page.status, page.tool.text) == (act.OUTCOME_STATUS_OK, "HTTP 200")
    assert control.blobs[page.blobs[0].digest] == b"<h1>a page</h1>"
    assert (refused.status, refused.reason) == (act.OUTCOME_STATUS_FAILED, "HOST_NOT_ALLOWED")
    assert (unknown.status, unknown.reason) == (act.OUTCOME_STATUS_FAILED, "UNKNOWN_TOOL")
    assert site.count(NOTHING_POSTED) == 1


async def tool_called(stream: Stream, name: str, url: str, hosts: list[str]) -> pb.StepResult:
    """What came of a call of a tool in a mission that may reach these hosts."""
    tool = ToolAction(tool=name)
    tool.arguments.update({"url": url, "10": "after 9", "9": "in other languages"})
    key = pb.StepKey(run_id=IDS.ulid(), step_id=IDS.ulid(), attempt=1, fence=pb.Fence(epoch=1))
    (frame,) = await stream.assigns([(key, act.Action(effect_class=eff.EFFECT_CLASS_READ, tool=tool))])
    frame.assign.allowed_hosts.extend(hosts)
    stream.send(frame)
    return await stream.result(key)


@asynccontextmanager
async def working(program: Path, told: Mapping[str, str]) -> AsyncGenerator[asyncio.subprocess.Process]:
    """A process of the worker; told to leave at the end, if it is still there."""
    process = await asyncio.create_subprocess_exec(
        PROGRAMS / "node", program, env=with_programs(told), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


@asynccontextmanager
async def self_test(up: Up) -> AsyncGenerator[asyncio.StreamReader]:
    """The events of a mission that does nothing, many times, as they are told; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *(PROGRAMS / "skyagent", "run", "--template", "self_test", "--input", f"steps={STEPS}", "--json"),
        env=with_programs(up.env),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    yield process.stdout
    await process.stdout.read()
    assert await process.wait() == 0


async def until(events: asyncio.StreamReader, last: str) -> AsyncGenerator[str]:
    """The kinds of events, up to the first of one kind."""
    async for line in events:
        for kind in json.loads(line).get("event", {}).get("body", {}):
            yield kind
            if kind == last:
                return
    pytest.fail(f"it ended without {last}")


async def test_it_is_short_enough_to_be_read() -> None:
    assert sum(len(path.read_text().splitlines()) for path in SOURCE.glob("src/*.ts")) < LARGEST
