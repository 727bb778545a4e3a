"""MissionService."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import grpc

from control.agentfs import AgentFs
from control.budgets import Escrow, first_budgets
from control.core.budget import stated
from control.core.templates import Template, template_named
from control.journal import said
from control.mission_api.preparing import Preparation
from control.mission_api.runs import Runs, Start, same_mission
from control.mission_api.store import MissionRow, MissionStore, inserted
from infra.auth import Caller, Role, caller
from infra.clock import Clock
from infra.digest import digest_message
from infra.errors import AlreadyExists, Denied, NotFound, Precondition
from infra.ids import Ids
from skyagent.mission.v1 import mission_pb2
from skyagent.mission.v1 import mission_service_pb2 as pb
from skyagent.mission.v1 import mission_service_pb2_grpc as rpc
from skyagent.run.v1 import event_pb2 as ev

Context = grpc.aio.ServicerContext[object, object]


@dataclass(frozen=True, slots=True)
class Missions:
    """Missions of a tenant, and the runs that they start."""

    store: MissionStore
    runs: Runs
    preparation: Preparation
    agentfs: AgentFs
    escrow: Escrow
    clock: Clock
    ids: Ids
    starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Runs of a mission are numbered, and none starts while it is being deleted: one of either at a time."""

    async def create(self, request: pb.CreateMissionRequest) -> MissionRow:
        """The mission, created or known; its first run has started unless the request holds it.

        Raises:
            InvalidArgument: with one violation for each problem of the spec.
            AlreadyExists: when the request_id stands for another request.
        """
        who, digest = caller(), _digest(request)
        known = await self.store.by_request(who.tenant, request.request_id)
        if known is not None:
            return _same_request(known, digest)
        prepared = await self.preparation.prepare(request.spec, who.tenant)
        row = MissionRow(
            mission_id=self.ids.ulid(),
            tenant=who.tenant,
            creator=in_name_of(who, request.actor),
            spec=prepared.spec.SerializeToString(deterministic=True),
            created_ms=self.clock.now_ms(),
            request_id=request.request_id or None,
            request_digest=digest,
        )
        limits = stated(request.spec.limits)
        bounds = first_budgets(row.tenant, row.mission_id, limits, row.creator, row.created_ms)
        if request.hold:
            return _same_request(await self.store.create(row, also=bounds), digest)
        draws = await self.draws(row, limits)
        start = Start(row, row.creator, prepared.template.version, row.request_id, draws)
        head = await self.runs.start(start, also=[inserted(row), *bounds])
        mission = await self.get(head.mission_id)
        await self.show_inputs(mission.current_run_id, prepared.spec)
        return _same_request(mission, digest)

    async def start_run(self, mission_id: str, request_id: str, actor: str) -> str:
        """Another run of a mission. Raises NotFound, or AlreadyExists for a reused request_id."""
        starter = in_name_of(caller(), actor)
        async with self.starting:
            row = await self.get(mission_id)
            spec = mission_pb2.MissionSpec.FromString(row.spec)
            template = template_named(self.preparation.templates, spec.template)
            draws = await self.draws(row)
            start = Start(row, starter, template.version, request_id or None, draws)
            head = await self.runs.start(start)
        same_mission(head, mission_id)
        await self.show_inputs(head.run_id, spec)
        return head.run_id

    async def get(self, mission_id: str) -> MissionRow:
        """Raises NotFound, also for another tenant's."""
        row = await self.store.get(caller().tenant, mission_id)
        if row is None:
            erasure = await self.runs.journal.mission_erasure(mission_id, tenant=caller().tenant)
            if erasure is not None and erasure.all:
                told = f"mission {mission_id} was {said(erasure)}"
                raise Precondition("MISSION_ERASED", told, mission_id=mission_id, erasure_id=erasure.erasure_id)
            raise NotFound(
                "MISSION_NOT_FOUND",
                f"mission {mission_id!r} does not exist; list missions with `skyagent missions ls`",
                mission_id=mission_id,
            )
        return row

    async def delete(self, mission_id: str) -> None:
        """Raises NotFound, or Precondition while a run of it goes on."""
        async with self.starting:
            row = await self.get(mission_id)
            unended = sorted(await self.runs.unended(mission_id, row.tenant))
            if unended:
                first = f"cancel its runs first: {', '.join(unended)}"
                raise Precondition("RUNS_NOT_ENDED", first, mission_id=mission_id)
            await self.store.delete(row.tenant, mission_id, self.clock.now_ms())

    async def draws(self, row: MissionRow, new: Collection[str] = ()) -> tuple[ev.Draw, ...]:
        """The budgets that a run of the mission draws from; `new` are those that begin with it."""
        bound = await self.escrow.bound(row.tenant, row.mission_id)
        mission = {*new, *(budget.kind for budget in bound if budget.mission_id)}
        tenant = {budget.kind for budget in bound if not budget.mission_id}
        return tuple(
            ev.Draw(kind=kind, from_mission=kind in mission, from_tenant=kind in tenant)
            for kind in sorted(mission | tenant)
        )

    async def show_inputs(self, run_id: str, spec: mission_pb2.MissionSpec) -> None:
        """Shows what a run was given in its folder."""
        for file in spec.files:
            suffix = "json" if "json" in file.media_type else "csv" if "csv" in file.media_type else "txt"
            name = f"{file.role or file.digest[3:15]}.{suffix}"
            await self.agentfs.show_input(run_id, name, file.digest)


class MissionServicer(rpc.MissionServiceServicer):
    """Translates; Missions decides."""

    def __init__(self, missions: Missions, templates: Mapping[str, Template]) -> None:
        self._missions = missions
        self._templates = templates

    async def CreateMission(self, request: pb.CreateMissionRequest, context: Context) -> pb.CreateMissionResponse:
        row = await self._missions.create(request)
        return pb.CreateMissionResponse(mission=row.contract(), run_id=row.current_run_id)

    async def GetMission(self, request: pb.GetMissionRequest, context: Context) -> pb.GetMissionResponse:
        return pb.GetMissionResponse(mission=(await self._missions.get(request.mission_id)).contract())

    async def ListMissions(self, request: pb.ListMissionsRequest, context: Context) -> pb.ListMissionsResponse:
        page = await self._missions.store.page(
            caller().tenant, page_size=request.page_size or 50, page_token=request.page_token
        )
        missions = [row.contract() for row in page.rows]
        return pb.ListMissionsResponse(missions=missions, next_page_token=page.next_page_token)

    async def DeleteMission(self, request: pb.DeleteMissionRequest, context: Context) -> pb.DeleteMissionResponse:
        await self._missions.delete(request.mission_id)
        return pb.DeleteMissionResponse()

    async def ListTemplates(self, request: pb.ListTemplatesRequest, context: Context) -> pb.ListTemplatesResponse:
        return pb.ListTemplatesResponse(templates=[template.contract() for template in self._templates.values()])


def in_name_of(who: Caller, actor: str) -> str:
    """Whose it is: the caller's own, unless a service acts for somebody. Raises Denied for anybody else who tries."""
    if actor and who.role is not Role.INTERNAL:
        raise Denied("ACTOR_DENIED", f"role {who.role} acts in its own name only; leave out the actor {actor!r}")
    return actor or who.subject


def _digest(request: pb.CreateMissionRequest) -> str:
    asked = pb.CreateMissionRequest(spec=request.spec, hold=request.hold)
    return digest_message(asked)


def _same_request(row: MissionRow, digest: str) -> MissionRow:
    if row.request_digest != digest:
        raise AlreadyExists(
            "REQUEST_ID_REUSED",
            f"this request_id created mission {row.mission_id} from another request: make a new one",
        )
    if row.deleted_ms is not None:
        raise NotFound("MISSION_NOT_FOUND", f"mission {row.mission_id!r} was deleted", mission_id=row.mission_id)
    return row
