from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from control.orchestrator.evidence import MOST_REFUSALS, NOT_STORED, without
from evals.end_to_end.skyagent_mesh import free_ports
from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.blobs import shared_blobs
from infra.digest import digest_of
from infra.refs import blob_refs
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import CLOCK, ControlPlane, control_plane, noop, settings_in, worker
from tests.control.orchestrator.scripted import ended, scripted_worker


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


async def test_a_run_goes_on_when_its_folder_cannot_show_what_a_step_saw(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    begun, go_on = asyncio.Event(), asyncio.Event()
    go_on.set()
    settings.agentfs_dir.mkdir()
    (settings.agentfs_dir / "missions").write_text("no folder")
    async with (
        control_plane(settings) as plane,
        worker(settings, plane.runtime.address, Witness(1, begun, go_on)),
    ):
        run_id = await plane.start(steps="2")
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
        assert await evidence_is_readable(plane, run_id)


def nowhere(size: int = 4) -> BlobRef:
    return BlobRef(digest=digest_of(b"seen"), size=size, media_type="image/jpeg", role="picture")


@pytest.mark.parametrize("named", [nowhere(), nowhere(size=5)], ids=["not stored", "stored with another length"])
async def test_a_result_that_names_what_is_not_stored_is_refused_and_recorded_once_it_is(
    tmp_path: Path, named: BlobRef
) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        blobs = await plane.runtime.shared(shared_blobs)
        if named.size == 5:
            await blobs.put(b"seen")
        run_id = await plane.start([noop("look")])
        key, outcome = (await hand.assigned()).key, ended()
        outcome.blobs.append(named)
        hand.result(key, outcome)
        refused = (await hand.next("result_refused", "result_recorded")).result_refused
        assert (refused.key, list(refused.missing)) == (key, [named.digest])
        assert "step_finished" not in await plane.kinds(run_id)
        await blobs.put(b"seen")
        outcome.blobs[0].size = 4
        hand.result(key, outcome)
        await hand.next("result_recorded")
        assert await evidence_is_readable(plane, run_id)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_an_outcome_whose_evidence_never_comes_is_recorded_without_it_and_says_so(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        key, outcome = (await hand.assigned()).key, ended()
        outcome.blobs.append(nowhere())
        kinds: list[str | None] = []
        while "result_recorded" not in kinds:
            hand.result(key, outcome)
            kinds.append((await hand.next("result_refused", "result_recorded")).WhichOneof("frame"))
        finished = (await plane.until(run_id, "step_finished")).body.step_finished
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
    assert kinds == ["result_refused"] * MOST_REFUSALS + ["result_recorded"]
    assert not finished.outcome.blobs
    assert (finished.outcome.status, finished.outcome.effect) == (outcome.status, outcome.effect)
    assert f"its worker never stored {nowhere().digest}" in finished.outcome.message


def test_a_file_that_nobody_can_read_is_no_success() -> None:
    kept = BlobRef(digest=digest_of(b"kept"), size=4)
    made = act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, blobs=[kept, nowhere()])
    made.browser.files.extend([nowhere(), kept])
    rest = without(made, [nowhere().digest])
    assert (rest.status, rest.effect, rest.reason) == (act.OUTCOME_STATUS_FAILED, eff.EFFECT_DONE, NOT_STORED)
    assert list(rest.blobs) == list(rest.browser.files) == [kept]


def test_what_is_missing_deep_inside_an_outcome_is_not_named_either() -> None:
    part = act.Outcome()
    part.workspace.files.add(path="a").blob.CopyFrom(nowhere())
    made = act.Outcome(status=act.OUTCOME_STATUS_OK, batch=act.BatchResult(outcomes=[part]))
    rest = without(made, [nowhere().digest])
    assert [ref.digest for ref in blob_refs(rest)] == []
    assert rest.batch.outcomes[0].workspace.files[0].path == "a"
