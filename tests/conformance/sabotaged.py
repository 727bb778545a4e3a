"""Our worker with one rule turned off, to be found out: `python -m tests.conformance.sabotaged FAULT`.

`forgetful` keeps no journal over its death, `trusting` takes the transport's ack for ResultRecorded, `unfenced` obeys
an owner that was overtaken, `tireless` begins whatever its lease says, `eager` reports without storing evidence.
"""

# The rules that are turned off are private, and nobody else's business.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import sys

from execution import wire
from execution.attempts import AttemptKey, Fence, Record, Refusal
from execution.blobs import Store
from execution.journal import Journal
from execution.lease import Lease
from execution.noop import NoopExecutor
from execution.session import Session
from execution.uplink import Uplink
from execution.worker import WorkerSettings, run_worker
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import load_settings
from infra.telemetry import telemetry
from skyagent.execution.v1 import worker_service_pb2 as pb


async def work() -> None:
    settings, clock = load_settings(), SystemClock()
    place = settings.worker
    told = WorkerSettings(
        connect=place.connect, data_dir=settings.data_dir, worker_id=place.id, token_file=place.token_file
    )
    ids = system_ids(clock)
    async with telemetry(settings, place.id, ids) as spans:
        await run_worker(NoopExecutor(place.witness), told, clock=clock, ids=ids, telemetry=spans)


def _forgetful() -> None:
    def forgetting(self: Journal) -> None:
        for table in ("steps", "runs"):
            self._execute(f"DELETE FROM {table}")

    Journal.lose_begun = forgetting


def _trusting() -> None:
    sent, apply = Session._sent, Session._apply
    waiting: dict[int, AttemptKey] = {}

    def noting(self: Session, frame: pb.ControlRequest) -> None:
        if frame.HasField("step_result"):
            waiting[frame.seq] = wire.key_of(frame.step_result.key)
        sent(self, frame)

    def trusting(self: Session, frame: pb.ControlResponse) -> None:
        for seq in [seq for seq in waiting if seq <= frame.ack]:
            self._parts.group.create_task(self._release(waiting.pop(seq)))
        apply(self, frame)

    Session._sent, Session._apply = noting, trusting


def _unfenced() -> None:
    def refusal(self: Journal, key: AttemptKey, fence: Fence) -> Refusal | None:
        return Refusal.RUN_ENDED if self.has_ended(key.run_id) else None

    Journal._refusal = refusal


def _tireless() -> None:
    def covers(self: Lease, key: AttemptKey) -> bool:
        return True

    Lease.covers = covers


def _eager() -> None:
    async def nothing(self: Uplink, record: Record, store: Store) -> bool:
        return True

    Uplink._upload = nothing


FAULTS = {
    "forgetful": _forgetful,
    "trusting": _trusting,
    "unfenced": _unfenced,
    "tireless": _tireless,
    "eager": _eager,
}


if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    asyncio.run(work())
