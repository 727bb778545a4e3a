"""A worker in a process of its own whose effects can be counted: `python -m tests.execution.counting_worker`.

Every execution appends its attempt to a file, which is the world that must not be touched twice. Payloads say more:
`wait` never ends by itself, and the path of a FIFO is read to its end before the effect.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from execution.worker import WorkerSettings, run_worker
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import Settings
from infra.telemetry import telemetry
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1.action_pb2 import Outcome


class Counter(NoopExecutor):
    def __init__(self, effects: Path) -> None:
        self._effects = effects

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        payload = assignment.action.noop.payload.decode()
        if payload == "wait":
            await asyncio.Event().wait()
        elif payload:
            await asyncio.to_thread(Path(payload).read_bytes)
        self._touch(f"{assignment.step_id}.{assignment.attempt}\n")
        evidence = await blobs.put(assignment.step_id.encode(), "text/plain", "evidence")
        return Outcome(status=action_pb2.OUTCOME_STATUS_OK, effect=effect_pb2.EFFECT_DONE, blobs=[evidence])

    def _touch(self, line: str) -> None:
        descriptor = os.open(self._effects, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


async def work(arguments: argparse.Namespace) -> None:
    clock = SystemClock()
    ids = system_ids(clock)
    data_dir = Path(arguments.data_dir)
    settings = WorkerSettings(
        connect=arguments.connect,
        data_dir=data_dir,
        worker_id="noop-1",
        drain_grace=arguments.drain_grace,
        crash_at=arguments.crash_at,
    )
    async with telemetry(Settings(data_dir=data_dir), "worker", ids) as spans:
        await run_worker(Counter(Path(arguments.effects)), settings, clock=clock, ids=ids, telemetry=spans)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("connect", "data-dir", "effects"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--drain-grace", type=float, default=20.0)
    parser.add_argument("--crash-at", default="")
    asyncio.run(work(parser.parse_args()))
