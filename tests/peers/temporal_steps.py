"""Temporal's dev server under the bench's load: a workflow of 20 activities, over a database file of its own.

python temporal_steps.py FOLDER SECONDS AT_ONCE...      (in the peers' environment)
"""

import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from socket import create_server

import uvloop
from measure import PAYLOAD, STEPS, Run, measure, say_settings
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "steps"
PROGRAM = Path(sys.executable).with_name("temporal")


@activity.defn
async def step(_n: int) -> str:
    return PAYLOAD.decode()


@workflow.defn
class TwentySteps:
    @workflow.run
    async def run(self) -> None:
        for n in range(STEPS):
            await workflow.execute_activity(step, n, start_to_close_timeout=timedelta(seconds=10))


def twenty_steps(client: Client) -> Run:
    async def run(tell: Callable[[float], None]) -> None:
        start = time.perf_counter()
        await client.execute_workflow(TwentySteps.run, id=str(uuid.uuid4()), task_queue=QUEUE)
        for _ in range(STEPS):
            tell((time.perf_counter() - start) / STEPS)

    return run


@contextmanager
def dev_server(folder: Path) -> Generator[str]:
    """Its address; it ends with the block."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [PROGRAM, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port)]
    where = ["--db-filename", str(folder / "temporal.db"), "--log-level", "error"]
    with subprocess.Popen([*command, *where], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.kill()


async def connected(address: str) -> Client:
    """A client, once the server answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await Client.connect(address)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise


async def main(folder: Path, seconds: float, at_once: list[int]) -> None:
    with dev_server(folder) as address:
        client = await connected(address)
        say_settings("temporal-dev", database="its own SQLite file", payload="200 B", latency="mean of a run's steps")
        steps = {"workflows": [TwentySteps], "activities": [step], "workflow_runner": UnsandboxedWorkflowRunner()}
        async with Worker(client, task_queue=QUEUE, **steps):
            for runs in at_once:
                await measure("temporal-dev", twenty_steps(client), at_once=runs, seconds=seconds)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), float(sys.argv[2]), [int(each) for each in sys.argv[3:]]))
