"""ScheduleService, and the scheduler as a service of the mesh."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc

from control.journal import shared_journal
from control.scheduler.firings import FiringStore
from control.scheduler.loop import Scheduler
from control.scheduler.missions import Missions
from control.scheduler.schedules import Schedules
from control.scheduler.starting import Starter
from control.scheduler.store import ScheduleStore
from infra.db import shared_database
from infra.mesh import Register, Runtime, Service
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.run.v1.run_service_pb2_grpc import RunServiceStub
from skyagent.schedule.v1 import schedule_service_pb2 as pb
from skyagent.schedule.v1 import schedule_service_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[object, object]
_PAGE = 50
_SHOWN_TIMES = 10
_PREFIX = len("FIRING_STATE_")


class ScheduleServicer(rpc.ScheduleServiceServicer):
    """Translates; Schedules decides."""

    def __init__(self, schedules: Schedules) -> None:
        self._schedules = schedules

    async def CreateSchedule(self, request: pb.CreateScheduleRequest, context: Context) -> pb.CreateScheduleResponse:
        return pb.CreateScheduleResponse(schedule=await self._schedules.create(request))

    async def GetSchedule(self, request: pb.GetScheduleRequest, context: Context) -> pb.GetScheduleResponse:
        return pb.GetScheduleResponse(schedule=await self._schedules.show(request.schedule_id))

    async def ListSchedules(self, request: pb.ListSchedulesRequest, context: Context) -> pb.ListSchedulesResponse:
        return await self._schedules.page(request.page_size or _PAGE, request.page_token)

    async def UpdateSchedule(self, request: pb.UpdateScheduleRequest, context: Context) -> pb.UpdateScheduleResponse:
        changed = await self._schedules.update(request.schedule_id, request.schedule)
        return pb.UpdateScheduleResponse(schedule=changed)

    async def DeleteSchedule(self, request: pb.DeleteScheduleRequest, context: Context) -> pb.DeleteScheduleResponse:
        await self._schedules.delete(request.schedule_id)
        return pb.DeleteScheduleResponse()

    async def TriggerSchedule(self, request: pb.TriggerScheduleRequest, context: Context) -> pb.TriggerScheduleResponse:
        run_id = await self._schedules.trigger(request.schedule_id, request.request_id)
        return pb.TriggerScheduleResponse(run_id=run_id)

    async def PauseSchedule(self, request: pb.PauseScheduleRequest, context: Context) -> pb.PauseScheduleResponse:
        return pb.PauseScheduleResponse(schedule=await self._schedules.pause(request.schedule_id))

    async def ResumeSchedule(self, request: pb.ResumeScheduleRequest, context: Context) -> pb.ResumeScheduleResponse:
        return pb.ResumeScheduleResponse(schedule=await self._schedules.resume(request.schedule_id))

    async def BackfillSchedule(
        self, request: pb.BackfillScheduleRequest, context: Context
    ) -> pb.BackfillScheduleResponse:
        return await self._schedules.backfill(request)

    async def ListFirings(self, request: pb.ListFiringsRequest, context: Context) -> pb.ListFiringsResponse:
        row = await self._schedules.get(request.schedule_id)
        states = [pb.FiringState.Name(state)[_PREFIX:] for state in request.states]
        page = await self._schedules.firings.page(
            row.schedule_id, states=states, page_size=request.page_size or _PAGE, page_token=request.page_token
        )
        firings = [firing.contract() for firing in page.firings]
        return pb.ListFiringsResponse(firings=firings, next_page_token=page.next_page_token)

    async def ListDueTimes(self, request: pb.ListDueTimesRequest, context: Context) -> pb.ListDueTimesResponse:
        return await self._schedules.due_times(request.schedule_id, request.count or _SHOWN_TIMES)


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncGenerator[Register]:
    database, journal = await runtime.shared(shared_database), await runtime.shared(shared_journal)
    channel, incarnation = runtime.channel("mission-api"), runtime.ids.uuid()
    missions = Missions(MissionServiceStub(channel), RunServiceStub(channel))
    firings = FiringStore(database, incarnation)
    starter = Starter(firings, missions, runtime.clock, incarnation, runtime.metrics)
    scheduler = Scheduler(firings, starter, missions, journal, runtime.clock)
    store = ScheduleStore(database, scheduler.look)
    schedules = Schedules(store, firings, missions, scheduler, runtime.clock, runtime.ids)
    runtime.background("scheduler", scheduler.run)
    yield lambda server: rpc.add_ScheduleServiceServicer_to_server(ScheduleServicer(schedules), server)


SERVICE = Service("scheduler", (pb.DESCRIPTOR.services_by_name["ScheduleService"],), _open)
