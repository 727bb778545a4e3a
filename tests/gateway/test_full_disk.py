"""A data directory on a file system that has no room left: what is refused, what waits, and how it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from infra.settings import GatewaySettings, Settings
from tests.gateway.http import post
from tests.gateway.test_whole_mesh import Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.timeout(150),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system of a size of its own"),
]

LARGE = {"spec": {"goal": "x" * 4000, "template": "self_test", "inputs": [{"name": "steps", "value": "1"}]}}


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest_asyncio.fixture
async def place(small_disk: Path, free_port: Callable[[], int]) -> AsyncGenerator[Place]:
    found = Place(
        Settings(
            data_dir=small_disk / "data",
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


def fill(disk: Path) -> Path:
    """Takes all room there is."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    return filler


async def refused(place: Place) -> tuple[int, dict[str, object], list[str]]:
    """Missions until one is refused: how, and the runs of those that were taken."""
    gateway, taken = place.gateway(), list[str]()
    while len(taken) < 1000:
        answer = await gateway.own("/missions", *post(json.dumps(LARGE)))
        if answer.status != 200:
            return answer.status, answer.error, taken
        taken.append(json.loads(answer.body)["runId"])
    raise AssertionError("the disk was never full")


async def succeeded(place: Place) -> set[str]:
    listed = await place.skyagent("runs", "ls")
    return {str(line["runId"]) for line in listed.lines if str(line["phase"]) == "RUN_PHASE_SUCCEEDED"}


async def test_a_full_disk_refuses_missions_and_what_was_taken_goes_on_once_there_is_room(
    place: Place, small_disk: Path
) -> None:
    assert (await place.skyagent("up", "--detach")).code == 0
    before = await place.pids()
    started = await place.skyagent("run", "--template", "self_test", "--set", "steps=150", "--no-watch")
    filler = fill(small_disk)
    status, error, taken = await refused(place)
    assert (status, error["code"]) == (429, 8), error
    assert "no space left" in str(error["message"])
    assert "free space on that file system and try again" in str(error["message"])
    by_cli = await place.skyagent("run", "--template", "self_test", "--no-watch")
    assert by_cli.code == 5
    assert by_cli.err.endswith("[DISK_FULL]\n")
    async with asyncio.timeout(30):
        while (health := await place.gateway().call("/healthz")).status != 503:
            pass
    told = {fact["name"]: fact["detail"] for fact in json.loads(health.body)["facts"]}
    assert "free space on that file system" in told["database"]
    assert "free some space" in told["disk"]
    listed = await place.skyagent("runs", "ls")
    assert listed.code == 0
    assert {str(line["runId"]) for line in listed.lines} >= {*taken[-20:]}

    filler.unlink()
    async with asyncio.timeout(90):
        while not {str(started.lines[0]["runId"]), *taken} <= await succeeded(place):
            pass
    async with asyncio.timeout(30):
        while (await place.gateway().call("/healthz")).status != 200:
            pass
    assert (await place.skyagent("audit", "verify")).code == 0
    after = await place.pids()
    assert after["control-plane"] == before["control-plane"]


async def test_a_start_on_a_full_disk_is_one_clear_error_and_leaves_nothing(place: Place, small_disk: Path) -> None:
    filler = fill(small_disk)
    for arguments in (("up",), ("run", "--template", "self_test")):
        said = await place.skyagent(*arguments)
        assert said.code == 5, said
        assert said.err.startswith("skyagent: no space left to write ")
        assert said.err.count("\n") == 1
    assert not place.left()
    filler.unlink()
    async with asyncio.timeout(60):
        assert (await place.skyagent("up", "--detach")).code == 0
