"""A client that is not ours in anything but the contracts: Node, grpc-js, and messages generated on the spot."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.settings import environment

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENT = REPOSITORY / "docs" / "clients" / "node"
PROGRAMS = Path(sys.executable).parent
STEPS = 100


@dataclass(frozen=True, slots=True)
class Up:
    """A mesh that `skyagent up` runs."""

    gateway: str
    token: str


@pytest.mark.timeout(180)
async def test_a_node_client_lists_gives_pauses_resumes_and_watches(tmp_path: Path) -> None:
    client = await installed(tmp_path / "client")
    async with mesh(tmp_path / "data") as up:
        said = await output(PROGRAMS / "node", "mission.mjs", up.gateway, up.token, cwd=client)
    lines = [json.loads(line) for line in said.splitlines()]
    events = [line for line in lines if "seq" in line]
    kinds = [event["kind"] for event in events]

    assert "data_entry" in [template["name"] for template in lines[0]["templates"]]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert kinds.count("commandApplied") == 2
    assert kinds.count("stepValidated") == STEPS
    assert kinds[-1] == "runFinished"
    assert lines[-1]["phase"] == "SUCCEEDED"
    assert lines[-1]["events"] == len(events)


async def installed(folder: Path) -> Path:
    """The client as whoever clones the repository gets it: packages by its lock file, messages by its template."""
    left_out = shutil.ignore_patterns("gen", "node_modules")
    await asyncio.to_thread(shutil.copytree, CLIENT, folder, ignore=left_out)
    await output(PROGRAMS / "npm", "ci", "--prefer-offline", "--loglevel=error", cwd=folder)
    # The template's own input is relative to where it lies.
    await output(PROGRAMS / "buf", "generate", REPOSITORY, "--template", CLIENT / "buf.gen.yaml", cwd=folder)
    return folder


@asynccontextmanager
async def mesh(folder: Path) -> AsyncGenerator[Up]:
    """`skyagent up` on free ports with a worker that does nothing; ended by `skyagent down`."""
    gateway, control = free_ports(2)
    env = {
        "SKYAGENT_DATA_DIR": str(folder),
        "SKYAGENT_GATEWAY__PORT": str(gateway),
        "SKYAGENT_LISTEN": f"127.0.0.1:{control}",
        "SKYAGENT_WORKERS": '{"noop": 1}',
    }
    await output(PROGRAMS / "skyagent", "up", "--detach", cwd=REPOSITORY, env=env)
    try:
        yield Up(f"127.0.0.1:{gateway}", (folder / "token").read_text().strip())
    finally:
        await output(PROGRAMS / "skyagent", "down", cwd=REPOSITORY, env=env)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all are held until all are found."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in held]
    for each in held:
        each.close()
    return ports


async def output(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What a program prints; an assertion with its errors when it fails."""
    path = os.pathsep.join((str(PROGRAMS), os.environ.get("PATH", os.defpath)))
    child = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=environment() | {"PATH": path} | dict(env or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await child.communicate()
    assert child.returncode == 0, f"{command[0]}: {printed.decode()}\n{errors.decode()}"
    return printed.decode()
