"""Several control planes on one PostgreSQL, some of them processes of their own."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from infra.settings import LeaseSettings, OwnershipSettings, Settings
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import ControlPlane, control_plane, settings_in


def settings_of(node: str, address: str, folder: Path, **changes: object) -> Settings:
    url = SecretStr(address)
    return settings_in(folder, node_id=node, database_url=url, ownership=OwnershipSettings(), **changes)


@asynccontextmanager
async def other_process(
    node: str, address: str, folder: Path, lease: LeaseSettings | None = None
) -> AsyncGenerator[Process]:
    """A control plane of its own, as an operator starts it."""
    env = os.environ | {
        "SKYAGENT_DATA_DIR": str(folder),
        "SKYAGENT_LISTEN": "127.0.0.1:0",
        "SKYAGENT_NODE_ID": node,
        "SKYAGENT_DATABASE_URL": address,
    }
    if lease is not None:
        env |= {f"SKYAGENT_LEASE__{name.upper()}": str(seconds) for name, seconds in lease.model_dump().items()}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "gateway.cli", "serve", "all", env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def owner_of(plane: ControlPlane, run_id: str, node: str) -> ev.RunEvent:
    async with asyncio.timeout(20):
        async for event in plane.events(run_id):
            if event.body.owner_changed.node_id == node:
                return event
    raise AssertionError("a tail never ends by itself")


@asynccontextmanager
async def onlooker(address: str, folder: Path) -> AsyncGenerator[ControlPlane]:
    """A process that owns nothing, and may read and command."""
    async with control_plane(settings_of("onlooker", address, folder), services=()) as plane:
        yield plane
