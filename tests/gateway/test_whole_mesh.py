"""The real mesh as a person starts it: `skyagent up`, the real control plane, real workers."""

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

from evals.sites import ledger
from gateway.supervisor.leftovers import marker_of
from infra.processes import ProcessId, alive, find_marked, process_id
from infra.settings import GatewaySettings, Settings
from tests.gateway.http import Gateway, post
from tests.gateway.test_cli import Said
from tests.gateway.test_supervisor import REPOSITORY

pytestmark = [pytest.mark.asyncio(loop_scope="function"), pytest.mark.timeout(120)]


@dataclass(frozen=True, slots=True)
class Place:
    """A data directory and what is typed there."""

    settings: Settings

    async def skyagent(self, *arguments: str, **variables: str) -> Said:
        """Runs a command to its end."""
        return await self.end(await self.start(*arguments, **variables))

    async def start(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        """Starts a command."""
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", *arguments),
            env={**os.environ, **self._variables(), **variables},
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def end(self, process: asyncio.subprocess.Process) -> Said:
        """Its exit code and what it printed."""
        out, err = await process.communicate()
        return Said(process.returncode or 0, out.decode(), err.decode())

    def gateway(self) -> Gateway:
        """The gateway of this place, for curl."""
        settings = self.settings
        token = settings.token_path.read_text()
        return Gateway(settings.gateway.port, token, "", 0, settings.data_dir)

    async def status(self) -> dict[str, list[dict[str, object]]]:
        """What `status --json` says."""
        return json.loads((await self.skyagent("status", "--json")).out)

    async def pids(self) -> dict[str, int]:
        """Every process of the mesh, by name."""
        status = await self.status()
        return {str(part["name"]): int(str(part["pid"])) for part in (*status["parts"], *status["owned"])}

    def left(self) -> list[ProcessId]:
        """What is still there of the mesh."""
        return find_marked(marker_of(self.settings))

    def _variables(self) -> dict[str, str]:
        return {
            "SKYAGENT_DATA_DIR": str(self.settings.data_dir),
            "SKYAGENT_LISTEN": self.settings.listen,
            "SKYAGENT_GATEWAY__PORT": str(self.settings.gateway.port),
            "SKYAGENT_WORKERS": json.dumps(self.settings.workers),
        }


@pytest_asyncio.fixture
async def place(tmp_path: Path, free_port: Callable[[], int]) -> AsyncGenerator[Place]:
    found = Place(
        Settings(
            data_dir=tmp_path / "data",
            listen=f"127.0.0.1:{free_port()}",
            gateway=GatewaySettings(port=free_port()),
            workers={"noop": 1},
        )
    )
    try:
        yield found
    finally:
        await found.skyagent("down")
        assert not found.left()


async def test_up_in_the_background_then_down_leaves_nothing(place: Place) -> None:
    up = await place.skyagent("up", "--detach")
    assert (up.code, up.err) == (0, "")
    running = await place.pids()
    assert set(running) == {"control-plane", "envoy", "noop-1"}
    down = await place.skyagent("down")
    assert down.code == 0
    assert not place.left()
    assert (await place.skyagent("status")).code == 69


async def test_a_run_with_no_mesh_starts_one_for_itself_and_ends_it(place: Place) -> None:
    said = await place.skyagent("run", "--template", "self_test", "--set", "steps=5")
    assert said.err == ""
    assert said.code == 0
    assert said.lines[-1]["end"]["phase"] == "RUN_PHASE_SUCCEEDED"
    assert not place.left()


async def test_a_run_uses_the_mesh_that_there_is(place: Place) -> None:
    await place.skyagent("up", "--detach")
    before = await place.pids()
    assert (await place.skyagent("run", "--template", "self_test", "--set", "steps=2")).code == 0
    assert await place.pids() == before
    runs = await place.skyagent("runs", "ls")
    assert [line["phase"] for line in runs.lines] == ["RUN_PHASE_SUCCEEDED"]


async def test_a_dry_run_touches_nothing(place: Place) -> None:
    said = await place.skyagent("run", "--template", "self_test", SKYAGENT_DRY_RUN="true")
    created = said.lines[0]["event"]["body"]["runCreated"]  # pyright: ignore[reportArgumentType]
    assert created["spec"]["dryRun"] is True  # pyright: ignore[reportArgumentType]
    assert not [line for line in said.lines if "stepIntended" in str(line)]
    assert said.code == 0


async def test_journals_that_were_written_verify(place: Place) -> None:
    await place.skyagent("up", "--detach")
    await place.skyagent("run", "--template", "self_test", "--set", "steps=3")
    said = await place.skyagent("audit", "verify")
    assert said.code == 0
    assert [line["intact"] for line in said.lines] == [True]


async def test_an_unknown_template_is_a_usage_error_that_names_the_known_ones(place: Place) -> None:
    said = await place.skyagent("run", "--template", "nonsense")
    assert said.code == 2
    assert "nonsense" in said.err
    assert "self_test" in said.err
    assert not place.left()


async def test_an_interrupted_run_takes_its_own_mesh_with_it(place: Place) -> None:
    running = await place.start("run", "--template", "self_test", "--set", "steps=10000")
    assert running.stdout is not None
    await running.stdout.readline()
    running.send_signal(signal.SIGINT)
    said = await place.end(running)
    assert (said.code, said.err) == (130, "")
    assert not place.left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
async def test_up_ends_calmly_when_it_is_told_to(place: Place, number: signal.Signals, code: int) -> None:
    up = await place.start("up")
    assert up.stdout is not None
    while b"ready in" not in await up.stdout.readline():
        pass
    up.send_signal(number)
    said = await place.end(up)
    assert (said.code, said.err) == (code, "")
    assert not place.left()


async def test_the_plain_paths_create_read_pause_and_resume(place: Place) -> None:
    await place.skyagent("up", "--detach")
    gateway = place.gateway()
    spec = '{"spec": {"goal": "nothing", "template": "self_test", "inputs": [{"name": "steps", "value": "10000"}]}}'
    created = json.loads((await gateway.own("/missions", *post(spec))).body)
    run = f"/runs/{created['runId']}"
    paused = json.loads((await gateway.own(f"{run}/pause", *post("{}"))).body)
    assert paused["run"]["phase"] in ("RUN_PHASE_PAUSING", "RUN_PHASE_PAUSED")
    resumed = await gateway.own(f"{run}/resume", *post("{}"))
    assert resumed.status == 200
    assert json.loads((await gateway.own(run)).body)["run"]["runId"] == created["runId"]


async def test_a_goal_that_is_too_long_is_told_by_its_field_and_a_request_that_is_by_its_limit(
    place: Place, tmp_path: Path
) -> None:
    await place.skyagent("up", "--detach")
    for size, status, said in ((1 << 20, 400, "spec.goal: must be at most 16384"), (9 << 20, 413, "larger than 8 MiB")):
        asked = tmp_path / f"{size}.json"
        asked.write_text(json.dumps({"spec": {"goal": "x" * size, "template": "self_test"}}))
        answer = await place.gateway().own("/missions", *post(f"@{asked}"), "-H", "expect:")
        assert answer.status == status
        assert said in str(answer.error["message"])
    by_cli = await place.skyagent("run", "--template", "self_test", "--goal", "x" * 100_000)
    assert by_cli.code == 2
    assert by_cli.err.startswith("skyagent: spec.goal: must be at most 16384")


async def test_a_question_without_a_terminal_is_exit_code_3_and_answered_later(place: Place, tmp_path: Path) -> None:
    browsing = Place(place.settings.model_copy(update={"workers": {"browser": 1}}))
    account = ledger.Account("clerk", password="correct horse", signing_key="k" * 50)
    rows = tmp_path / "rows.csv"
    rows.write_text(
        "invoice number,supplier,contact email,issue date,category,amount,currency\n"
        "INV-1,Acme,a@acme.example,2026-01-02,Consulting,12000.00,EUR\n"
    )
    async with ledger.running(tmp_path / "ledger", account) as application:
        up = await browsing.skyagent("up", "--detach", SKYAGENT_SECRET_CLERK=account.password)
        assert up.code == 0, up.err
        asked = await browsing.skyagent(
            *("run", "--template", "data_entry", "--site", application.url, "--input", f"rows={rows}"),
            *("--input", f"form=/{ledger.FORM_PATH}", "--input", f"list=/{ledger.LIST_PATH}?q={{key}}"),
            *("--input", "username=clerk", "--input", "password={{secret:clerk}}", "--approve-above", "1000"),
        )
        assert asked.code == 3, asked.err
        (question,) = (await browsing.skyagent("approvals", "ls")).lines
        assert "12000.00" in str(question)
        approved = await browsing.skyagent("approvals", "approve", str(question["record"]["approvalId"]))
        assert approved.code == 0
        ended = await browsing.skyagent("runs", "watch", str(question["runId"]))
        assert ended.code == 0
        artifacts = await browsing.skyagent("artifacts", "ls")
        (table,) = [line for line in artifacts.lines if str(line["name"]).endswith(".csv")]
        fetched = await browsing.skyagent("artifacts", "get", str(table["artifactId"]), "-o", str(tmp_path / "out.csv"))
        assert fetched.code == 0
        assert "INV-1" in (tmp_path / "out.csv").read_text()


async def test_a_missing_browser_is_one_clear_error(place: Place) -> None:
    browsing = Place(place.settings.model_copy(update={"workers": {"browser": 1}}))
    said = await browsing.skyagent("up", "--detach", SKYAGENT_BROWSER__EXECUTABLE="/no/such/browser")
    assert said.code == 1
    assert "/no/such/browser" in said.err
    assert "SKYAGENT_BROWSER__EXECUTABLE" in said.err
    assert not place.left()


async def test_a_corrupt_journal_is_one_clear_error(place: Place) -> None:
    place.settings.data_dir.mkdir(parents=True)
    place.settings.journal_path.write_bytes(b"this is no database" * 1000)
    said = await place.skyagent("up", "--detach")
    assert said.code == 1
    assert "journal.db" in said.err
    assert not place.left()


async def test_when_the_supervisor_is_killed_every_process_ends_by_itself(place: Place) -> None:
    await place.skyagent("up", "--detach")
    status = await place.status()
    processes = [process_id(pid) for pid in (await place.pids()).values()]
    os.kill(int(str(status["pid"])), signal.SIGKILL)
    async with asyncio.timeout(20):
        await asyncio.gather(*(_ended(process) for process in processes if process))
    assert (await place.skyagent("status")).code == 69
    assert (await place.skyagent("up", "--detach")).code == 0


async def test_a_worker_and_its_browser_that_are_killed_are_back(place: Place) -> None:
    browsing = Place(place.settings.model_copy(update={"workers": {"browser": 1}}))
    await browsing.skyagent("up", "--detach")
    before = await browsing.pids()
    os.kill(before["browser-1"], signal.SIGKILL)
    os.kill(before["chromium"], signal.SIGKILL)
    async with asyncio.timeout(60):
        while not _all_new(before, after := await browsing.pids(), ("browser-1", "chromium")):
            pass
    assert after["control-plane"] == before["control-plane"]
    old = process_id(before["chromium"])
    assert old is None or not alive(old)


def _all_new(before: dict[str, int], after: dict[str, int], names: tuple[str, ...]) -> bool:
    return all(after.get(name, 0) not in (0, before[name]) for name in names)


async def _ended(process: ProcessId) -> None:
    """Returns when a process that is not ours has ended (pidfd_open(2))."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(handle, gone.set)
    try:
        if alive(process):
            await gone.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)
