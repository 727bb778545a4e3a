from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from control.mission_api.service import SERVICE
from infra.errors import AlreadyExists, InvalidArgument, NotFound, Precondition, SkyError
from infra.mesh import serving
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.artifact.v1 import artifact_service_pb2 as artifacts_pb
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.mission.v1 import mission_pb2
from skyagent.mission.v1 import mission_service_pb2 as pb
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs_pb
from tests.control.meshed import CallingAs
from tests.control.mission_api.world import Client, World, client_of, login

ROWS = b"Number,Vendor\nA-1,x\nA-2,y\n"
REQUEST_ID = "6f1f2c34-5a6b-4c7d-8e9f-0a1b2c3d4e5f"


def _data_entry() -> mission_pb2.MissionSpec:
    spec = mission_pb2.MissionSpec(goal="enter them", template="data_entry")
    for name, value in (("site", "http://127.0.0.1:8000/"), ("form", "/invoices/add/")):
        spec.inputs.add(name=name, value=value)
    return spec


async def _refused(world: World, spec: mission_pb2.MissionSpec) -> InvalidArgument:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await world.client.missions.CreateMission(pb.CreateMissionRequest(spec=spec))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert not (await world.client.missions.ListMissions(pb.ListMissionsRequest())).missions
    return error


async def _error(call: Awaitable[object]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_mission_and_its_first_run_are_there_together(world: World) -> None:
    created = await world.create()
    mission = (
        await world.client.missions.GetMission(pb.GetMissionRequest(mission_id=created.mission.mission_id))
    ).mission
    run = (await world.client.runs.GetRun(runs_pb.GetRunRequest(run_id=created.run_id))).run
    assert mission == created.mission
    assert (mission.current_run_id, mission.run_count, mission.creator) == (created.run_id, 1, "admin-of-default")
    assert (run.mission_id, run.phase, run.ordinal, run.template_version) == (
        mission.mission_id,
        ev.RUN_PHASE_QUEUED,
        1,
        1,
    )
    assert run.spec == mission.spec


async def test_what_is_stored_is_all_that_a_plan_needs(world: World) -> None:
    spec = (await world.create()).mission.spec
    inputs = {given.name: given.value for given in spec.inputs}
    assert inputs["login"] == "http://127.0.0.1:9/login/"
    assert list(spec.allowed_hosts) == ["127.0.0.1:9"]
    assert (spec.limits.max_steps, spec.runtime) == (1000, mission_pb2.RUNTIME_BROWSER)


async def test_an_uploaded_table_is_named_and_shown_in_the_runs_folder(world: World, settings: Settings) -> None:
    spec = _data_entry()
    stored = await world.client.artifacts.UploadFile(artifacts_pb.UploadFileRequest(data=ROWS, media_type="text/csv"))
    spec.files.append(stored.blob)
    created = await world.client.missions.CreateMission(pb.CreateMissionRequest(spec=spec))
    assert [file.role for file in created.mission.spec.files] == ["rows"]
    assert created.mission.spec.limits.max_steps == 2000
    folder = settings.agentfs_dir / "missions" / created.run_id / "inputs"
    assert (folder / "rows.csv").read_bytes() == ROWS


async def test_a_table_written_into_the_request_becomes_a_file(world: World) -> None:
    spec = _data_entry()
    spec.inputs.add(name="rows", value=ROWS.decode())
    created = await world.client.missions.CreateMission(pb.CreateMissionRequest(spec=spec))
    stored = created.mission.spec
    assert "rows" not in {given.name for given in stored.inputs}
    download = world.client.artifacts.Download(artifacts_pb.DownloadRequest(digest=stored.files[0].digest))
    assert b"".join([piece.data async for piece in download]) == ROWS


async def test_another_tenants_file_cannot_be_used(world: World, stranger: Client) -> None:
    stored = await stranger.artifacts.UploadFile(artifacts_pb.UploadFileRequest(data=ROWS))
    spec = _data_entry()
    spec.files.append(stored.blob)
    error = await _refused(world, spec)
    assert [violation.field for violation in error.violations] == ["spec.files[0]"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (mission_pb2.MissionSpec(goal="x", template="nope"), "spec.template"),
        (mission_pb2.MissionSpec(goal="x"), "spec.template"),
        (mission_pb2.MissionSpec(goal="", template="login_flow"), "spec.goal"),
        (mission_pb2.MissionSpec(goal="x" * 1_000_000, template="login_flow"), "spec.goal"),
        (mission_pb2.MissionSpec(goal="x", template="login_flow", runtime=mission_pb2.RUNTIME_DESKTOP), "spec.runtime"),
        (
            mission_pb2.MissionSpec(goal="x", template="login_flow", files=[BlobRef(digest="sha1:x")]),
            "spec.files[0].digest",
        ),
        (login(password="hunter2"), "spec.inputs.password"),
        (login(site="nowhere"), "spec.inputs.site"),
    ],
)
async def test_a_spec_that_cannot_be_done_creates_nothing(
    world: World, spec: mission_pb2.MissionSpec, field: str
) -> None:
    assert field in {violation.field for violation in (await _refused(world, spec)).violations}


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (mission_pb2.Limits(max_wall_time=Duration(seconds=-1)), "spec.limits.max_wall_time"),
        (mission_pb2.Limits(approval_ttl=Duration(seconds=-1)), "spec.limits.approval_ttl"),
        # Beyond what a time can be: it would break the run at its first question.
        (mission_pb2.Limits(approval_ttl=Duration(seconds=315_576_000_000)), "spec.limits.approval_ttl"),
    ],
)
async def test_a_time_that_cannot_be_meant_is_refused(world: World, limits: mission_pb2.Limits, field: str) -> None:
    spec = login()
    spec.limits.CopyFrom(limits)
    assert [violation.field for violation in (await _refused(world, spec)).violations] == [field]


async def test_the_same_request_is_answered_by_the_same_mission_also_when_it_comes_at_once(world: World) -> None:
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(world.create(request_id=REQUEST_ID)) for _ in range(5)]
    assert len({call.result().mission.mission_id for call in calls}) == 1
    assert len({call.result().run_id for call in calls}) == 1
    assert len((await world.client.runs.ListRuns(runs_pb.ListRunsRequest())).runs) == 1


async def test_a_request_id_cannot_stand_for_another_request(world: World) -> None:
    await world.create(request_id=REQUEST_ID)
    other = pb.CreateMissionRequest(spec=login(username="boss"), request_id=REQUEST_ID)
    assert isinstance(await _error(world.client.missions.CreateMission(other)), AlreadyExists)


async def test_a_held_mission_has_no_run_until_one_is_started(world: World) -> None:
    held = await world.create(hold=True, request_id=REQUEST_ID)
    assert held.run_id == ""
    assert (await world.create(hold=True, request_id=REQUEST_ID)).mission == held.mission
    start = runs_pb.StartRunRequest(mission_id=held.mission.mission_id, request_id=REQUEST_ID.replace("6", "7"))
    first = (await world.client.runs.StartRun(start)).run
    again = (await world.client.runs.StartRun(start)).run
    assert first.run_id == again.run_id
    second = (await world.client.runs.StartRun(runs_pb.StartRunRequest(mission_id=held.mission.mission_id))).run
    assert second.run_id != first.run_id
    run = (await world.client.runs.GetRun(runs_pb.GetRunRequest(run_id=second.run_id))).run
    assert run.ordinal == 2
    mission = await world.client.missions.GetMission(pb.GetMissionRequest(mission_id=held.mission.mission_id))
    assert (mission.mission.run_count, mission.mission.current_run_id) == (2, second.run_id)


async def test_missions_are_listed_newest_first_in_pages(world: World) -> None:
    created = [(await world.create()).mission.mission_id for _ in range(3)]
    first = await world.client.missions.ListMissions(pb.ListMissionsRequest(page_size=2))
    rest = await world.client.missions.ListMissions(
        pb.ListMissionsRequest(page_size=2, page_token=first.next_page_token)
    )
    assert [mission.mission_id for mission in (*first.missions, *rest.missions)] == created[::-1]
    assert rest.next_page_token == ""


async def test_a_mission_is_deleted_only_when_its_runs_have_ended(world: World) -> None:
    created = await world.create(request_id=REQUEST_ID)
    delete = pb.DeleteMissionRequest(mission_id=created.mission.mission_id)
    assert isinstance(await _error(world.client.missions.DeleteMission(delete)), Precondition)
    await world.finish(await world.owned(created.run_id))
    await world.client.missions.DeleteMission(delete)
    get = pb.GetMissionRequest(mission_id=created.mission.mission_id)
    assert isinstance(await _error(world.client.missions.GetMission(get)), NotFound)
    assert not (await world.client.missions.ListMissions(pb.ListMissionsRequest())).missions
    assert (await world.client.runs.GetRun(runs_pb.GetRunRequest(run_id=created.run_id))).run.phase
    with pytest.raises(grpc.aio.AioRpcError, match="was deleted"):
        await world.create(request_id=REQUEST_ID)


async def test_of_a_deletion_and_a_start_at_once_only_one_happens(world: World) -> None:
    created = await world.create()
    mission_id = created.mission.mission_id
    await world.finish(await world.owned(created.run_id))
    deleted, started = await asyncio.gather(
        world.client.missions.DeleteMission(pb.DeleteMissionRequest(mission_id=mission_id)),
        world.client.runs.StartRun(runs_pb.StartRunRequest(mission_id=mission_id)),
        return_exceptions=True,
    )
    assert isinstance(deleted, grpc.aio.AioRpcError) is not isinstance(started, grpc.aio.AioRpcError)


async def test_another_tenants_mission_looks_as_if_it_were_not_there(world: World, stranger: Client) -> None:
    mission_id = (await world.create(request_id=REQUEST_ID)).mission.mission_id
    calls = (
        stranger.missions.GetMission(pb.GetMissionRequest(mission_id=mission_id)),
        stranger.missions.DeleteMission(pb.DeleteMissionRequest(mission_id=mission_id)),
        stranger.runs.StartRun(runs_pb.StartRunRequest(mission_id=mission_id)),
    )
    for call in calls:
        assert isinstance(await _error(call), NotFound)
    assert not (await stranger.missions.ListMissions(pb.ListMissionsRequest())).missions
    own = await stranger.missions.CreateMission(pb.CreateMissionRequest(spec=login(), request_id=REQUEST_ID))
    assert own.mission.mission_id != mission_id


async def test_templates_are_listed_with_what_they_need(world: World) -> None:
    templates = (await world.client.missions.ListTemplates(pb.ListTemplatesRequest())).templates
    names = [template.name for template in templates]
    assert names == sorted(names)
    assert {"data_entry", "login_flow"} <= set(names)
    assert templates[0].example.startswith("skyagent run --template data_entry")


async def test_in_a_dry_process_every_mission_is_a_dry_run(settings: Settings, calling_as: CallingAs) -> None:
    async with serving([SERVICE], settings.model_copy(update={"dry_run": True})) as runtime:
        client = client_of(calling_as, runtime)
        created = await client.missions.CreateMission(pb.CreateMissionRequest(spec=login()))
    assert created.mission.spec.dry_run
