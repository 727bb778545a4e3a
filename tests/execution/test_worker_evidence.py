"""Evidence: on the worker's disk before an outcome names it, at the control plane before a result does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from execution import uplink
from execution.attempts import AttemptKey
from execution.blobs import Spool
from execution.executor import Assignment, BlobSink
from infra.digest import digest_hex, digest_of
from infra.errors import DataLoss, NotFound
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import BatchResult, Outcome
from tests.execution.actors import Actor, Immediate, done, settings, working
from tests.execution.control_plane import ControlPlane, assign, control_plane, noop, step_key, ulid
from tests.execution.processes import Site

LARGE = bytes(range(256)) * 4096
KEY = AttemptKey(ulid(1), ulid(1), 1)


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


def spooled(folder: Path) -> set[str]:
    return {file.name for file in (folder / "workers" / "noop-1" / "spool").rglob("*") if file.is_file()}


def forge(folder: Path) -> None:
    next(path for path in folder.rglob("*") if path.is_file()).write_bytes(b"forged")


class Reader(Actor):
    """Reads the blob that the payload names, and says what it got."""

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        own = await blobs.put(b"own", "text/plain", "note")
        assert await blobs.get(own.digest) == b"own"
        try:
            return done((await blobs.get(assignment.action.noop.payload.decode())).decode())
        except NotFound as missing:
            return done(missing.code)


async def test_a_result_follows_its_evidence(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    actor.evidence = LARGE
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        (ref,) = (await link.result()).outcome.blobs
        assert ref == BlobRef(digest=digest_of(LARGE), size=len(LARGE), media_type="text/plain", role="evidence")
        assert plane.blobs == {ref.digest: LARGE}
        assert spooled(tmp_path) == {digest_hex(ref.digest)}
        link.recorded(key)


async def test_evidence_is_let_go_once_its_outcome_is_recorded(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    actor.evidence = b"seen"
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)) as worker:
        link = await plane.meet()
        for step in (1, 2):
            link.recorded(link.assign(assign(step_key(step))))
            link.recorded((await link.result()).key)
        link.send(pb.ControlResponse(drain=pb.Drain()))
        await link.next("goodbye")
        link.close()
        await worker
        assert spooled(tmp_path) == set()


async def test_a_result_waits_for_a_store_that_is_away(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "UPLOAD_RETRY", 0.01)
    actor = Immediate()
    actor.evidence = b"seen"
    plane.stores = False
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        await plane.put_tried.wait()
        assert link.waiting("step_result") == 0
        plane.stores = True
        assert (await link.result()).outcome.blobs[0].digest in plane.blobs


async def test_a_result_whose_run_ended_while_it_waited_for_the_store_is_not_told(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uplink, "UPLOAD_RETRY", 0.001)
    actor = Immediate()
    actor.evidence = b"seen"
    plane.stores = False
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        await plane.put_tried.wait()
        link.send(pb.ControlResponse(run_ended=pb.RunEnded(run_id=ulid(1))))
        assert await actor.ended_runs.get() == ulid(1)
        plane.stores = True
        for step in range(2, 12):
            link.assign(assign(step_key(step, run=2)))
            assert (await link.result()).key.run_id == ulid(2)


async def test_evidence_is_stored_again_at_a_control_plane_that_never_got_it(tmp_path: Path) -> None:
    actor = Actor()
    actor.evidence = b"seen"
    async with AsyncExitStack() as stack:
        async with control_plane() as plane:
            address = plane.address
            await stack.enter_async_context(working(actor, settings(address, tmp_path)))
            link = await plane.meet()
            link.assign(assign())
            running = await actor.next()
        actor.let(running)
        async with control_plane(address) as plane:
            link = await plane.meet()
            assert (await link.result()).outcome.blobs[0].digest in plane.blobs


async def test_what_the_control_plane_misses_is_stored_again_and_then_the_result_is_told_again(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Immediate()
    actor.evidence = b"seen"
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        first = await link.result()
        plane.blobs.clear()
        link.send(pb.ControlResponse(result_refused=pb.ResultRefused(key=key, missing=[digest_of(b"seen")])))
        assert await link.result() == first
        assert plane.blobs == {digest_of(b"seen"): b"seen"}


async def test_a_result_is_told_although_the_disk_has_altered_its_evidence(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    actor.evidence = b"seen"
    plane.stores = False
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        await plane.put_tried.wait()
        forge(tmp_path / "workers" / "noop-1" / "spool")
        assert (await link.result()).outcome.blobs[0].digest == digest_of(b"seen")
        assert plane.blobs == {}


async def test_evidence_named_deep_inside_a_result_is_stored_too(plane: ControlPlane, tmp_path: Path) -> None:
    class Batch(Actor):
        async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
            part = done()
            part.tool.files.append(await blobs.put(b"deep", "text/plain", "file"))
            outcome = done()
            outcome.batch.CopyFrom(BatchResult(outcomes=[part]))
            return outcome

    async with working(Batch(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        await link.result()
        assert list(plane.blobs.values()) == [b"deep"]


async def test_an_executor_reads_what_it_stored_and_what_the_control_plane_has(
    plane: ControlPlane, tmp_path: Path
) -> None:
    plane.blobs[digest_of(b"input")] = b"input"
    async with working(Reader(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        for step, (data, said) in enumerate([(b"input", "input"), (b"nowhere", "NOT_FOUND")], start=1):
            link.assign(assign(step_key(step), noop(digest_of(data).encode())))
            assert (await link.result()).outcome.message == said


async def test_other_bytes_than_those_asked_for_are_not_taken(plane: ControlPlane, tmp_path: Path) -> None:
    plane.blobs[digest_of(b"input")] = b"other"
    async with working(Reader(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(), noop(digest_of(b"input").encode())))
        assert (await link.result()).outcome.message.endswith("[BLOB_DIGEST_MISMATCH]")


async def test_evidence_lies_where_only_its_owner_may_look(tmp_path: Path) -> None:
    await Spool(tmp_path / "spool").put(KEY, b"seen")
    folders = [tmp_path / "spool" / KEY.run_id / f"{KEY.step_id}.1", tmp_path / "spool"]
    assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}


async def test_altered_evidence_is_noticed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    digest = await spool.put(KEY, b"seen")
    forge(tmp_path)
    with pytest.raises(DataLoss, match="altered"):
        await spool.get(KEY, digest)


async def test_letting_go_of_one_attempt_leaves_the_same_bytes_of_another(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    other = AttemptKey(ulid(1), ulid(1), 2)
    digest = await spool.put(KEY, b"seen")
    assert await spool.put(other, b"seen") == digest
    await spool.drop(KEY)
    assert await spool.get(KEY, digest) is None
    assert await spool.get(other, digest) == b"seen"


@pytest.mark.parametrize(("joint", "kept"), [("effect", 0), ("journalled", 1)])
async def test_a_start_clears_away_evidence_that_no_outcome_names(
    plane: ControlPlane, tmp_path: Path, joint: str, kept: int
) -> None:
    site = Site(tmp_path)
    async with site.worker(plane.address, crash_at=joint) as worker:
        link = await plane.meet()
        link.assign(assign())
        await worker.exit_code()
    assert len(spooled(site.data_dir)) == 1
    async with site.worker(plane.address):
        await plane.meet()
        assert len(spooled(site.data_dir)) == kept


async def test_a_sweep_keeps_what_is_still_to_be_delivered(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    gone = AttemptKey(ulid(2), ulid(1), 1)
    digest = await spool.put(KEY, b"seen")
    await spool.put(gone, b"seen")
    spool.sweep([KEY])
    assert await spool.get(KEY, digest) == b"seen"
    assert await spool.get(gone, digest) is None
