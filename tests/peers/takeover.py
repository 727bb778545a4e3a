"""How long nobody drives a run when its control plane dies, and when it leaves in order.

Two control planes share a PostgreSQL, as `skyagent serve all` in processes of their own; one owns a run that waits for
a worker, the other stands by. The owner is killed, or told to end, and the time counts until its successor has written
so into the run's journal, as somebody sees it who watches the run from a third process.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from infra.settings import Settings
from tests.control.orchestrator.harness import ControlPlane, control_plane, noop, settings_in

PATIENCE = 60.0


@dataclass
class Pair:
    """An owner and its standby, who change places."""

    settings: Settings
    onlooker: ControlPlane
    nodes: dict[str, Process] = field(default_factory=dict[str, Process])
    begun: int = 0

    async def start(self) -> str:
        """Another control plane; its name, once it is known to live."""
        self.begun += 1
        name = f"node-{self.begun}"
        address = self.settings.database_url
        env = os.environ | {
            "SKYAGENT_DATA_DIR": str(self.settings.data_dir),
            "SKYAGENT_LISTEN": "127.0.0.1:0",
            "SKYAGENT_NODE_ID": name,
            "SKYAGENT_DATABASE_URL": address.get_secret_value() if address else "",
        }
        command = (sys.executable, "-m", "gateway.cli", "serve", "all")
        self.nodes[name] = await asyncio.create_subprocess_exec(*command, env=env, stdout=DEVNULL, stderr=DEVNULL)
        async with asyncio.timeout(PATIENCE):
            while name not in {node.node_id for node in await self.onlooker.journal.beats()}:  # noqa: ASYNC110 -- a row
                await asyncio.sleep(0.05)
        return name

    async def seconds_without(self, run_id: str, owner: str, how: signal.Signals) -> tuple[float, str]:
        """From the end of the owner to the word of the next one; and who that is."""
        process = self.nodes.pop(owner)
        seq = (await self.onlooker.journal.head(run_id)).head_seq
        async with asyncio.TaskGroup() as group:
            told = group.create_task(self._next_owner(run_id, seq))
            start = time.perf_counter()
            process.send_signal(how)
            successor = await told
            took = time.perf_counter() - start
        await process.wait()
        return took, successor

    async def _next_owner(self, run_id: str, seq: int) -> str:
        async with asyncio.timeout(PATIENCE):
            async for event in self.onlooker.events(run_id):
                if event.seq > seq and event.body.HasField("owner_changed"):
                    return event.body.owner_changed.node_id
        raise AssertionError("a tail never ends by itself")

    async def end(self) -> None:
        for process in self.nodes.values():
            process.kill()
            await process.wait()


@asynccontextmanager
async def pair(folder: Path, address: str) -> AsyncGenerator[Pair]:
    """Two control planes over a database, and somebody who watches."""
    settings = settings_in(folder, node_id="onlooker", database_url=SecretStr(address))
    async with control_plane(settings, services=()) as onlooker:
        both = Pair(settings, onlooker)
        try:
            yield both
        finally:
            await both.end()


async def handovers(folder: Path, address: str, times: int, how: signal.Signals) -> list[float]:
    """Seconds that each of so many changes of the owner took, shortest first."""
    took: list[float] = []
    async with pair(folder, address) as both:
        owner = await both.start()
        run_id = await both.onlooker.start([noop("waits for a worker that nobody starts")])
        await both.onlooker.until(run_id, "owner_changed")
        for _ in range(times):
            await both.start()
            seconds, owner = await both.seconds_without(run_id, owner, how)
            took.append(seconds)
    return sorted(took)
