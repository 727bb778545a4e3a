"""Executors that tests direct, and a worker running in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from execution.executor import Assignment, BlobSink, Executor
from execution.noop import NoopExecutor
from execution.worker import WorkerSettings, run_worker
from infra.clock import Clock, SystemClock
from infra.ids import system_ids
from infra.settings import Settings
from infra.telemetry import telemetry
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1.action_pb2 import Outcome
from skyagent.execution.v1.worker_service_pb2 import Inventory, WorkerSession


def done(message: str = "") -> Outcome:
    return Outcome(status=action_pb2.OUTCOME_STATUS_OK, effect=effect_pb2.EFFECT_DONE, message=message)


class Actor(NoopExecutor):
    """Acts when the test lets it. Every execution is announced by `started`; `let` ends it."""

    def __init__(self, *, kind: str = "noop", actions: tuple[str, ...] = ("noop/1",)) -> None:
        self._kind = kind
        self.started: asyncio.Queue[Assignment] = asyncio.Queue()
        self.executed: list[Assignment] = []
        self.ended_runs: asyncio.Queue[str] = asyncio.Queue()
        self.resident_runs: list[str] = []
        self.evidence: bytes | None = None
        self.catches_cancel: Outcome | None = None
        self._actions = actions
        self._ends: dict[tuple[str, int], asyncio.Future[Outcome]] = {}

    @property
    def kind(self) -> str:
        return self._kind

    def actions(self) -> tuple[str, ...]:
        return self._actions

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        self.executed.append(assignment)
        self.started.put_nowait(assignment)
        progress("acting")
        try:
            outcome = await self._end(assignment.step_id, assignment.attempt)
        except asyncio.CancelledError:
            if self.catches_cancel is None:
                raise
            return self.catches_cancel
        if self.evidence is not None:
            outcome.blobs.append(await blobs.put(self.evidence, "text/plain", "evidence"))
        return outcome

    async def next(self) -> Assignment:
        async with asyncio.timeout(20):
            return await self.started.get()

    def let(self, assignment: Assignment, outcome: Outcome | None = None) -> None:
        self._end(assignment.step_id, assignment.attempt).set_result(outcome or done())

    def fail(self, assignment: Assignment, failure: Exception) -> None:
        self._end(assignment.step_id, assignment.attempt).set_exception(failure)

    async def end_run(self, run_id: str) -> None:
        self.ended_runs.put_nowait(run_id)

    def inventory(self) -> Inventory:
        return Inventory(sessions=[WorkerSession(session_id=run, run_id=run) for run in self.resident_runs])

    def _end(self, step_id: str, attempt: int) -> asyncio.Future[Outcome]:
        return self._ends.setdefault((step_id, attempt), asyncio.get_running_loop().create_future())


class Immediate(Actor):
    """Acts at once."""

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        self.let(assignment)
        return await super().execute(assignment, blobs, progress)


def settings(address: str, data_dir: Path, **more: object) -> WorkerSettings:
    return WorkerSettings(connect=address, data_dir=data_dir, worker_id="noop-1", **more)  # type: ignore[arg-type]


@asynccontextmanager
async def working(
    executor: Executor, worker: WorkerSettings, clock: Clock | None = None
) -> AsyncGenerator[asyncio.Task[None]]:
    """A worker that runs while the block does, and dies without a word at its end."""
    clock = clock or SystemClock()
    ids = system_ids(SystemClock())
    async with telemetry(Settings(data_dir=worker.data_dir), "worker", ids) as spans:
        task = asyncio.ensure_future(run_worker(executor, worker, clock=clock, ids=ids, telemetry=spans))
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.wait([task])
