"""Archiving and erasing by the services: who may, what is answered afterwards, and what is left on the disk."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from control.journal import shared_journal
from control.journal.archive import archives_in
from control.mission_api.service import SERVICE as MISSION_API
from control.rebuild import rebuild
from control.verifying import verify
from infra.auth import Role
from infra.blobs import open_blobs
from infra.db import open_database
from infra.mesh import serving
from infra.settings import RetentionSettings, Settings
from infra.status import from_rpc_error
from skyagent.artifact.v1 import artifact_service_pb2 as art
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as pb
from tests.control.meshed import CallingAs
from tests.control.mission_api.world import Client, World, client_of, login

MARKER = "Rosa Klebb of 7 Crab Key"


async def ended(world: World, expect: str = MARKER) -> tuple[str, str]:
    """A mission and its run, which has ended."""
    request = missions.CreateMissionRequest(spec=login(expect=expect))
    created = await world.client.missions.CreateMission(request)
    await world.finish(await world.owned(created.run_id))
    return created.mission.mission_id, created.run_id


async def erased(client: Client, run_id: str, *seqs: int) -> pb.Erasure:
    asked = pb.EraseRunRequest(run_id=run_id, seqs=seqs, all=not seqs, reason="she asked for it")
    return (await client.runs.EraseRun(asked)).erasure


async def reason_of(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call  # pyright: ignore[reportGeneralTypeIssues]  # whatever the call returns
    return from_rpc_error(refused.value).reason


async def test_an_archived_run_is_answered_as_before(world: World) -> None:
    _, run_id = await ended(world)
    runs = world.client.runs
    before = await runs.GetRun(pb.GetRunRequest(run_id=run_id))
    events = await runs.ListEvents(pb.ListEventsRequest(run_id=run_id))
    answer = await runs.ArchiveRun(pb.ArchiveRunRequest(run_id=run_id))
    assert answer.events == events.head_seq
    assert await runs.GetRun(pb.GetRunRequest(run_id=run_id)) == before
    assert await runs.ListEvents(pb.ListEventsRequest(run_id=run_id)) == events
    watched = [item async for item in runs.WatchRun(pb.WatchRunRequest(run_id=run_id))]
    assert [item.event for item in watched if item.HasField("event")] == list(events.events)
    assert watched[-1].end.phase == ev.RUN_PHASE_SUCCEEDED
    assert (await runs.VerifyRun(pb.VerifyRunRequest(run_id=run_id))).intact


async def test_whoever_asks_for_what_was_erased_is_told_when_by_whom_and_why(world: World) -> None:
    mission_id, run_id = await ended(world)
    erasure = await erased(world.client, run_id)
    assert (erasure.run_id, erasure.all, erasure.scrubbed) == (run_id, True, True)
    runs = world.client.runs
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await runs.GetRun(pb.GetRunRequest(run_id=run_id))
    error = from_rpc_error(told.value)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "RUN_ERASED")
    assert "because: she asked for it" in error.message
    watching = runs.WatchRun(pb.WatchRunRequest(run_id=run_id))
    assert await reason_of(anext(aiter(watching))) == "RUN_ERASED"
    asked = world.client.missions.GetMission(missions.GetMissionRequest(mission_id=mission_id))
    assert await reason_of(asked) == "MISSION_ERASED"
    listed = await runs.ListRuns(pb.ListRunsRequest())
    (summary,) = [run for run in listed.runs if run.run_id == run_id]
    assert (summary.phase, summary.goal) == (ev.RUN_PHASE_SUCCEEDED, "")
    assert "erased on" in summary.summary
    events = await runs.ListEvents(pb.ListEventsRequest(run_id=run_id))
    assert all(event.erased for event in events.events)
    assert (await runs.VerifyRun(pb.VerifyRunRequest(run_id=run_id))).intact
    found = await runs.ListErasures(pb.ListErasuresRequest(run_id=run_id))
    assert [(one.actor, one.reason) for one in found.erasures] == [("admin-of-default", "she asked for it")]


async def test_a_mission_stays_as_long_as_one_of_its_runs_does(world: World) -> None:
    mission_id, first = await ended(world)
    second = (await world.client.runs.StartRun(pb.StartRunRequest(mission_id=mission_id))).run.run_id
    await erased(world.client, first)
    kept = await world.client.missions.GetMission(missions.GetMissionRequest(mission_id=mission_id))
    assert kept.mission.spec.goal == "sign in"
    await world.finish(await world.owned(second))
    await erased(world.client, second)
    again = world.client.missions.GetMission(missions.GetMissionRequest(mission_id=mission_id))
    assert await reason_of(again) == "MISSION_ERASED"


async def test_only_an_administrator_erases_and_only_what_has_ended(world: World, calling_as: CallingAs) -> None:
    _, run_id = await ended(world)
    operator = client_of(calling_as, world.runtime, role=Role.OPERATOR)
    assert await reason_of(erased(operator, run_id)) == "PERMISSION_DENIED"
    stranger = client_of(calling_as, world.runtime, tenant="others")
    assert await reason_of(erased(stranger, run_id)) == "RUN_NOT_FOUND"
    archiving = stranger.runs.ArchiveRun(pb.ArchiveRunRequest(run_id=run_id))
    assert await reason_of(archiving) == "RUN_NOT_FOUND"
    going = (await world.create()).run_id
    assert await reason_of(erased(world.client, going)) == "RUN_NOT_ENDED"
    assert await reason_of(world.client.runs.ArchiveRun(pb.ArchiveRunRequest(run_id=going))) == "RUN_NOT_ENDED"
    assert (await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.seq


async def test_what_to_erase_is_said_exactly(world: World) -> None:
    _, run_id = await ended(world)
    runs = world.client.runs
    for wrong in (
        pb.EraseRunRequest(run_id=run_id, reason="why"),
        pb.EraseRunRequest(run_id=run_id, reason="why", all=True, seqs=[1]),
        pb.EraseRunRequest(run_id=run_id, reason="why", seqs=[999]),
        pb.EraseRunRequest(run_id=run_id, all=True),
    ):
        assert await reason_of(runs.EraseRun(wrong)) == "INVALID_ARGUMENT"
    assert not (await runs.ListErasures(pb.ListErasuresRequest())).erasures


async def test_after_an_erasure_no_file_holds_what_was_said_and_the_rest_can_be_made_again(
    settings: Settings, calling_as: CallingAs
) -> None:
    async with serving([MISSION_API], settings) as runtime:
        world = World(runtime, client_of(calling_as, runtime))
        (_, gone), (_, kept), (_, other) = await ended(world), await ended(world), await ended(world, "Welcome")
        await world.client.runs.ArchiveRun(pb.ArchiveRunRequest(run_id=kept))
        assert holding(settings.data_dir), "without it the test proves nothing"
        await world.client.runs.ArchiveRun(pb.ArchiveRunRequest(run_id=other))
        await erased(world.client, kept, 1)  # a part of an archived one
        await erased(world.client, gone)
        await erased(world.client, kept)
        assert holding(settings.data_dir) == []
    assert holding(settings.data_dir) == []
    async with open_database(settings.journal_path) as database, open_blobs(settings.blobs_dir) as blobs:
        report = await rebuild(database, lambda _: None, archives_in(blobs))
        found = await database.read(lambda connection: verify(connection, settings.blobs_dir, lambda _: None))
    assert report.same, report
    assert (found.runs, found.hurts) == (3, ())


async def test_what_is_old_enough_is_archived_by_itself(settings: Settings, calling_as: CallingAs) -> None:
    soon = settings.model_copy(update={"retention": RetentionSettings(archive_after_days=0, every=0.05)})
    async with serving([MISSION_API], soon) as runtime:
        world = World(runtime, client_of(calling_as, runtime))
        _, run_id = await ended(world)
        journal = await runtime.shared(shared_journal)
        async with asyncio.timeout(20):
            while run_id in await journal.archivable(before_ms=2**60, limit=9):
                pass
        assert [path for path in (settings.blobs_dir / "b3").rglob("*") if path.is_file()]
        assert (await world.client.runs.VerifyRun(pb.VerifyRunRequest(run_id=run_id))).intact


def holding(folder: Path) -> list[Path]:
    """Files in which the marker stands as it was written."""
    return [path for path in folder.rglob("*") if path.is_file() and MARKER.encode() in path.read_bytes()]


async def test_what_another_tenant_gave_stays_whatever_a_run_says_of_it(world: World, calling_as: CallingAs) -> None:
    other = client_of(calling_as, world.runtime, tenant="other", role=Role.OPERATOR)
    stored = (await other.artifacts.UploadFile(art.UploadFileRequest(data=b"a,b\n1,2\n", media_type="text/csv"))).blob
    spec = login()
    spec.goal = f"sign in, whatever {stored.digest} says"
    made = await world.client.missions.CreateMission(missions.CreateMissionRequest(spec=spec))
    await world.finish(await world.owned(made.run_id))
    await world.client.runs.EraseRun(pb.EraseRunRequest(run_id=made.run_id, all=True, reason="asked by the person"))
    pieces = [piece.data async for piece in other.artifacts.Download(art.DownloadRequest(digest=stored.digest))]
    assert b"".join(pieces) == b"a,b\n1,2\n"
