"""What the programs of `docs` are tried with: Node with their pinned packages, and a mesh that a person would start."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.settings import environment

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Up:
    """A mesh that `skyagent up` runs. `env` makes other commands find it."""

    gateway: str
    control: str
    token: str
    env: Mapping[str, str]


async def installed(source: Path, folder: Path) -> Path:
    """A program as whoever clones the repository gets it: packages by its lock file, messages by its template."""
    left_out = shutil.ignore_patterns("gen", "node_modules")
    await asyncio.to_thread(shutil.copytree, source, folder, ignore=left_out)
    await output(PROGRAMS / "npm", "ci", "--prefer-offline", "--loglevel=error", cwd=folder)
    # The template's own input is relative to where it lies.
    await output(PROGRAMS / "buf", "generate", REPOSITORY, "--template", source / "buf.gen.yaml", cwd=folder)
    return folder


@asynccontextmanager
async def mesh(folder: Path, workers: str = '{"noop": 1}') -> AsyncGenerator[Up]:
    """`skyagent up` on free ports, by default with a worker that does nothing; ended by `skyagent down`."""
    gateway, control = free_ports(2)
    env = {
        "SKYAGENT_DATA_DIR": str(folder),
        "SKYAGENT_GATEWAY__PORT": str(gateway),
        "SKYAGENT_LISTEN": f"127.0.0.1:{control}",
        "SKYAGENT_WORKERS": workers,
    }
    await output(PROGRAMS / "skyagent", "up", "--detach", cwd=REPOSITORY, env=env)
    try:
        yield Up(f"127.0.0.1:{gateway}", f"127.0.0.1:{control}", (folder / "token").read_text().strip(), env)
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
    child = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=with_programs(env or {}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, errors = await child.communicate()
    assert child.returncode == 0, f"{command[0]}: {printed.decode()}\n{errors.decode()}"
    return printed.decode()


def with_programs(env: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process, where Node and our own programs are found first."""
    path = os.pathsep.join((str(PROGRAMS), os.environ.get("PATH", os.defpath)))
    return environment() | {"PATH": path} | dict(env)
