"""A supervisor as a process of its own, to be killed: prints the pids of its children once it is ready."""

from __future__ import annotations

import asyncio
import json
import sys

from gateway.supervisor.mesh import running_mesh
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import Settings
from tests.gateway.test_supervisor import programs


async def main() -> None:
    clock, settings = SystemClock(), Settings.model_validate_json(sys.argv[1])
    async with running_mesh(settings, programs(settings), clock=clock, ids=system_ids(clock)) as board:
        await board.until_ready()
        sys.stdout.write(json.dumps([part.pid for part in board.mesh.parts]) + "\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


asyncio.run(main())
