"""The missions behind schedules, through MissionService and RunService, acting for the tenant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from infra.auth import acting_for
from infra.errors import InvalidArgument, Violation
from infra.ids import derived_uuid
from infra.status import from_rpc_error
from skyagent.mission.v1 import mission_service_pb2 as missions_pb
from skyagent.mission.v1.mission_pb2 import MissionSpec
from skyagent.run.v1 import run_service_pb2 as runs_pb

if TYPE_CHECKING:
    from control.scheduler.firings import ToStart
    from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceAsyncStub
    from skyagent.run.v1.run_service_pb2_grpc import RunServiceAsyncStub

DEADLINE = 10.0
"""Seconds that a call may take. What it did is found out by the same request again."""


@dataclass(frozen=True, slots=True)
class Missions:
    """mission-api as the scheduler sees it."""

    missions: MissionServiceAsyncStub
    runs: RunServiceAsyncStub

    async def create(self, spec: MissionSpec, *, tenant: str, actor: str, request_id: str) -> str:
        """A mission without a run; the same request_id is the same one.

        Raises InvalidArgument, which names the fields of `schedule.spec`, or what else CreateMission refuses.
        """
        request = missions_pb.CreateMissionRequest(spec=spec, hold=True, request_id=request_id, actor=actor)
        try:
            with acting_for(tenant):
                return (await self.missions.CreateMission(request, timeout=DEADLINE)).mission.mission_id
        except grpc.aio.AioRpcError as error:
            refused = from_rpc_error(error)
            if not isinstance(refused, InvalidArgument):
                raise refused from error
            named = (Violation(f"schedule.{one.field or 'spec'}", one.description) for one in refused.violations)
            raise InvalidArgument(*named, reason=refused.reason) from error

    async def exists(self, mission_id: str, tenant: str) -> bool:
        """Whether the tenant has that mission."""
        try:
            with acting_for(tenant):
                await self.missions.GetMission(missions_pb.GetMissionRequest(mission_id=mission_id), timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise from_rpc_error(error) from error
        return True

    async def start(self, start: ToStart) -> str:
        """The run of a firing, which is the same whoever asks for it how often. Raises SkyError."""
        schedule_id, due_ms, occasion = start.key
        request = runs_pb.StartRunRequest(
            mission_id=start.mission_id,
            request_id=derived_uuid("firing", schedule_id, str(due_ms), occasion),
            actor=start.creator,
        )
        try:
            with acting_for(start.tenant):
                return (await self.runs.StartRun(request, timeout=DEADLINE)).run.run_id
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def cancel(self, run_id: str, *, tenant: str, reason: str) -> None:
        """Cancel a run that may have ended meanwhile. Raises SkyError for anything else."""
        request = runs_pb.CancelRunRequest(run_id=run_id, request_id=derived_uuid("overlap", run_id), reason=reason)
        try:
            with acting_for(tenant):
                await self.runs.CancelRun(request, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
                raise from_rpc_error(error) from error
