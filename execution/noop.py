"""A worker that does nothing: for conformance tests of the protocol and for measuring the mesh.

Under trial it tells a witness that a step happened, so that somebody else can count it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from execution.executor import Assignment, BlobSink
from execution.witness import tell
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1.action_pb2 import Action, BatchResult, NoopResult, Outcome
from skyagent.execution.v1.worker_service_pb2 import Inventory


class NoopExecutor:
    """Returns every payload as it is. `witness` is an address that is told of each before it ends; empty: nobody is."""

    def __init__(self, witness: str = "") -> None:
        self._witness = witness

    @property
    def kind(self) -> str:
        return "noop"

    def actions(self) -> Sequence[str]:
        return ("noop/1",)

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        if not self._witness:
            return _echo(assignment.action)
        return await _told(self._witness, assignment.action, blobs)

    def inventory(self) -> Inventory:
        return Inventory()

    async def end_run(self, run_id: str) -> None:
        pass

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        pass


def _echo(action: Action) -> Outcome:
    outcome = Outcome(status=action_pb2.OUTCOME_STATUS_OK, effect=effect_pb2.EFFECT_NONE)
    if action.HasField("batch"):
        outcome.batch.CopyFrom(BatchResult(outcomes=map(_echo, action.batch.actions)))
    else:
        outcome.noop.CopyFrom(NoopResult(payload=action.noop.payload))
    return outcome


async def _told(witness: str, action: Action, blobs: BlobSink) -> Outcome:
    """The outcome of a no-op that somebody was told of; what is answered is kept as evidence."""
    answer = await tell(witness, action.noop.payload)
    outcome = _echo(action)
    outcome.effect = effect_pb2.EFFECT_DONE
    if answer:
        outcome.blobs.append(await blobs.put(answer, "text/plain", "witness"))
    return outcome
