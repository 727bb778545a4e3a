"""A control plane of which everything is real but what the services decide: for tests of what stands in front of it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import grpc
from google.api import httpbody_pb2  # pyright: ignore[reportMissingTypeStubs]

from infra.auth import caller
from infra.errors import NotFound
from infra.mesh import Register, Runtime, Service, serve
from infra.settings import load_settings
from skyagent.artifact.v1 import artifact_service_pb2 as artifacts
from skyagent.artifact.v1 import artifact_service_pb2_grpc as artifacts_rpc
from skyagent.execution.v1 import worker_service_pb2 as workers
from skyagent.execution.v1 import worker_service_pb2_grpc as workers_rpc
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.mission.v1 import mission_service_pb2_grpc as missions_rpc
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1 import run_service_pb2_grpc as runs_rpc

MISSION = "01J0000000000000000000000M"
RUN = "01J0000000000000000000000R"
ENDLESS = "01J0000000000000000000000E"
SLOW = "01J0000000000000000000000S"
FAILED = "01J0000000000000000000000F"
DENIED = "01J0000000000000000000000D"
PHASES = {FAILED: ev.RUN_PHASE_FAILED, DENIED: ev.RUN_PHASE_FAILED}
REASONS = {FAILED: "BROWSER_STALE", DENIED: "DENIED"}
PAGE = b"<script>alert(1)</script>"
PICTURE = b"\x89PNG not really"
PAGE_DIGEST = f"b3:{'0' * 64}"
PICTURE_DIGEST = f"b3:{'1' * 64}"
EVENTS = 5
SLOW_EVENTS = 40

Context = grpc.aio.ServicerContext[object, object]


class Missions(missions_rpc.MissionServiceServicer):
    """Creates the same mission every time and finds none."""

    async def CreateMission(
        self, request: missions.CreateMissionRequest, context: Context
    ) -> missions.CreateMissionResponse:
        answer = missions.CreateMissionResponse(run_id=RUN)
        answer.mission.mission_id = MISSION
        answer.mission.spec.CopyFrom(request.spec)
        answer.mission.creator = caller().subject
        return answer

    async def GetMission(self, request: missions.GetMissionRequest, context: Context) -> missions.GetMissionResponse:
        raise NotFound("MISSION_NOT_FOUND", f"mission {request.mission_id!r} does not exist")


def journal(run_id: str, length: int) -> list[ev.RunEvent]:
    """A run that begins, changes its owner a few times, and succeeds; the same whenever it is made."""
    phase, reason = PHASES.get(run_id, ev.RUN_PHASE_SUCCEEDED), REASONS.get(run_id, "")
    bodies = [
        ev.EventBody(run_created=ev.RunCreated(mission_id=MISSION)),
        *(ev.EventBody(owner_changed=ev.OwnerChanged(node_id=f"node-{seq}")) for seq in range(2, length)),
        ev.EventBody(run_finished=ev.RunFinished(phase=phase, reason=reason)),
    ]
    bodies[0].run_created.spec.goal = "enter the invoices"
    return [ev.RunEvent(run_id=run_id, seq=seq, epoch=1, body=body) for seq, body in enumerate(bodies, 1)]


class Runs(runs_rpc.RunServiceServicer):
    """Journals: some that ended, one that is slow, one that goes on for ever."""

    async def GetRun(self, request: runs.GetRunRequest, context: Context) -> runs.GetRunResponse:
        answer = runs.GetRunResponse()
        answer.run.run_id, answer.run.seq = request.run_id, os.getpid()
        return answer

    async def PauseRun(self, request: runs.PauseRunRequest, context: Context) -> runs.PauseRunResponse:
        return runs.PauseRunResponse(run=runs.RunSummary(run_id=request.run_id, phase=ev.RUN_PHASE_PAUSED))

    async def WatchRun(self, request: runs.WatchRunRequest, context: Context) -> AsyncIterator[runs.WatchRunResponse]:
        slow = request.run_id == SLOW
        for event in journal(request.run_id, SLOW_EVENTS if slow else EVENTS)[request.after_seq :]:
            yield runs.WatchRunResponse(event=event)
            if slow:
                await asyncio.sleep(0.1)
        while request.run_id == ENDLESS:
            await asyncio.sleep(0.05)
            yield runs.WatchRunResponse(heartbeat=runs.Heartbeat(head_seq=EVENTS))
        yield runs.WatchRunResponse(end=runs.EndOfRun(phase=ev.RUN_PHASE_SUCCEEDED, head_seq=EVENTS))


class Artifacts(artifacts_rpc.ArtifactServiceServicer):
    """A page and a picture."""

    async def ReadBlob(
        self, request: artifacts.ReadBlobRequest, context: Context
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        if request.digest == PAGE_DIGEST:
            yield httpbody_pb2.HttpBody(content_type="text/html", data=PAGE)
        elif request.digest == PICTURE_DIGEST:
            yield httpbody_pb2.HttpBody(content_type="image/png", data=PICTURE[:5])
            yield httpbody_pb2.HttpBody(content_type="image/png", data=PICTURE[5:])
        else:
            raise NotFound("BLOB_NOT_FOUND", f"{request.digest} is not stored")


class Workers(workers_rpc.WorkerServiceServicer):
    """Never reached through a gateway."""


@asynccontextmanager
async def _open(_: Runtime) -> AsyncGenerator[Register]:
    def register(server: grpc.aio.Server) -> None:
        missions_rpc.add_MissionServiceServicer_to_server(Missions(), server)  # pyright: ignore[reportAbstractUsage]
        runs_rpc.add_RunServiceServicer_to_server(Runs(), server)  # pyright: ignore[reportAbstractUsage]
        artifacts_rpc.add_ArtifactServiceServicer_to_server(Artifacts(), server)  # pyright: ignore[reportAbstractUsage]
        workers_rpc.add_WorkerServiceServicer_to_server(Workers(), server)  # pyright: ignore[reportAbstractUsage]

    yield register


PLANE = Service(
    "plane",
    (
        missions.DESCRIPTOR.services_by_name["MissionService"],
        runs.DESCRIPTOR.services_by_name["RunService"],
        artifacts.DESCRIPTOR.services_by_name["ArtifactService"],
        workers.DESCRIPTOR.services_by_name["WorkerService"],
    ),
    _open,
)

if __name__ == "__main__":
    if "broken" in sys.argv:
        sys.exit("plane: the journal is corrupt [DATABASE_CORRUPT]")
    asyncio.run(serve([PLANE], load_settings()))
