"""A mesh in which runs of given plans can be forked: mission-api, policy and orchestrator, and a worker by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from control.core.run import FOLD_VERSION
from control.journal import EventDraft, NewRun
from control.mission_api.service import SERVICE as MISSION_API
from control.orchestrator.service import SERVICE as ORCHESTRATOR
from infra.auth import Role, mint_token
from infra.channels import dial
from infra.settings import Settings
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1.run_service_pb2_grpc import RunServiceStub
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane
from tests.control.orchestrator.scripted import allow, policy

if TYPE_CHECKING:
    from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceAsyncStub
    from skyagent.run.v1.run_service_pb2_grpc import RunServiceAsyncStub


@dataclass
class Mesh:
    """A control plane and somebody who calls it."""

    plane: ControlPlane
    missions: MissionServiceAsyncStub
    runs: RunServiceAsyncStub

    async def start(self, nodes: Sequence[plan.PlanNode], *, more: bool = False) -> str:
        """A run of a mission whose plan is given as a whole."""
        spec = mission.MissionSpec(goal="try a fork", template="self_test")
        asked = missions.CreateMissionRequest(spec=spec, hold=True)
        created = (await self.missions.CreateMission(asked)).mission
        first = ev.RunCreated(mission_id=created.mission_id, tenant="default", spec=created.spec, ordinal=1)
        first.fold_version = FOLD_VERSION
        bodies = [ev.EventBody(run_created=first)]
        if nodes:
            bodies.append(ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes, more=more)))
        run_id, events = IDS.ulid(), tuple(map(EventDraft.of, bodies))
        new = NewRun(run_id, created.mission_id, "default", FOLD_VERSION, events, append_id=IDS.ulid())
        await self.plane.journal.create_run(new)
        return run_id

    async def fork(self, run_id: str, seq: int, **more: object) -> api.ForkRunResponse:
        asked = api.ForkRunRequest(run_id=run_id, seq=seq, **more)  # pyright: ignore[reportArgumentType]
        return await self.runs.ForkRun(asked)

    async def seq_of(self, run_id: str, kind: str) -> int:
        """Where the first event of a kind stands, once it is there."""
        return (await self.plane.until(run_id, kind)).seq


@asynccontextmanager
async def mesh(settings: Settings, *, orchestrator: bool = True) -> AsyncGenerator[Mesh]:
    services = (MISSION_API, policy(allow), *((ORCHESTRATOR,) if orchestrator else ()))
    async with control_plane(settings, services) as plane, AsyncExitStack() as stack:
        token = mint_token(settings, CLOCK, subject="ann", tenant="default", role=Role.ADMIN, ttl=600)
        channel = await stack.enter_async_context(dial(plane.runtime.address, token=lambda: token))
        yield Mesh(plane, MissionServiceStub(channel), RunServiceStub(channel))
