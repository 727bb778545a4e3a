from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from evals.end_to_end.skyagent_mesh import free_ports
from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.blobs import shared_blobs
from infra.digest import digest_of
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import CLOCK, ControlPlane, control_plane, settings_in, worker


class Witness(NoopExecutor):
    """Stores so many pieces of evidence, slowly enough for the control plane to go and come back meanwhile."""

    def __init__(self, pieces: int, begun: asyncio.Event, go_on: asyncio.Event) -> None:
        self._pieces, self._begun, self._go_on = pieces, begun, go_on

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> act.Outcome:
        self._begun.set()
        await self._go_on.wait()
        size = 300_000
        data = [bytes([number]) * size + assignment.step_id.encode() for number in range(self._pieces)]
        refs = [await blobs.put(piece, "application/octet-stream", f"piece-{n}") for n, piece in enumerate(data)]
        return act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, blobs=refs)


async def evidence_is_readable(plane: ControlPlane, run_id: str) -> bool:
    finished = (await plane.until(run_id, "step_finished", within=30)).body.step_finished
    blobs = await plane.runtime.shared(shared_blobs)
    return len(finished.outcome.blobs) > 0 and all([await blobs.exists(blob.digest) for blob in finished.outcome.blobs])


async def test_evidence_is_readable_as_soon_as_an_event_names_it_also_after_a_restart(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, listen=f"127.0.0.1:{free_ports(1)[0]}")
    begun, go_on = asyncio.Event(), asyncio.Event()
    async with worker(settings, settings.listen, Witness(4, begun, go_on)):
        async with control_plane(settings) as plane:
            run_id = await plane.start(steps="1")
            async with asyncio.timeout(20):
                await begun.wait()
        go_on.set()
        await CLOCK.sleep(0.3)  # the outcome is journalled while nobody listens
        async with control_plane(settings) as plane:
            assert await evidence_is_readable(plane, run_id)
            assert (await plane.until_ended(run_id, within=30)).phase == ev.RUN_PHASE_SUCCEEDED


class Boaster(NoopExecutor):
    """Names evidence that it never stored."""

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> act.Outcome:
        nowhere = BlobRef(
            digest=digest_of(assignment.step_id.encode()), size=26, media_type="image/jpeg", role="picture"
        )
        return act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, blobs=[nowhere])


async def test_a_run_goes_on_when_its_folder_cannot_show_what_a_step_saw(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address, Boaster()):
        state = await plane.until_ended(await plane.start(steps="2"))
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
