"""What is alive on a worker, as a file: for `status`, for the supervisor, and for whoever has to clean up by hand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from google.protobuf.json_format import MessageToDict

from execution.executor import Assignment, BlobSink, Executor
from infra.clock import Clock
from infra.disk import os_failure
from infra.log import event_logger
from skyagent.execution.v1.action_pb2 import Outcome
from skyagent.execution.v1.worker_service_pb2 import Inventory

log = event_logger(__name__)


class Reported(Executor):
    """An executor whose inventory is also written down.

    The worker asks for it when the control plane has welcomed it and at each heartbeat, so a fresh file says both
    what is alive and that the worker is connected.
    """

    def __init__(self, inner: Executor, path: Path, clock: Clock) -> None:
        self._inner = inner
        self._path = path
        self._clock = clock

    @property
    def kind(self) -> str:
        return self._inner.kind

    def actions(self) -> Sequence[str]:
        return self._inner.actions()

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        return await self._inner.execute(assignment, blobs, progress)

    async def end_run(self, run_id: str) -> None:
        await self._inner.end_run(run_id)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    def inventory(self) -> Inventory:
        """What is alive now, written down on the way."""
        inventory = self._inner.inventory()
        self._write(inventory)
        return inventory

    def _write(self, inventory: Inventory) -> None:
        alive = {"pid": os.getpid(), "kind": self.kind, "time_ms": self._clock.now_ms(), **MessageToDict(inventory)}
        draft = self._path.with_suffix(".draft")
        try:
            draft.write_text(json.dumps(alive, indent=1))
            draft.replace(self._path)
        except OSError as error:  # a full disk must not end the worker, and with it what it has begun, for a report
            log.warning("inventory.not_written", error=os_failure(error, self._path))
