"""The scheduler and mission-api in a mesh whose time stands still until a test lets it pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from control.journal import SqlJournal, shared_journal
from infra.clock import ManualClock
from infra.errors import SkyError
from infra.status import from_rpc_error
from skyagent.mission.v1 import mission_pb2, mission_service_pb2
from skyagent.schedule.v1 import schedule_service_pb2 as pb
from skyagent.schedule.v1.schedule_service_pb2_grpc import ScheduleServiceStub
from tests.control.mission_api.world import Client, World

if TYPE_CHECKING:
    from skyagent.schedule.v1.schedule_service_pb2_grpc import ScheduleServiceAsyncStub


def self_test() -> mission_pb2.MissionSpec:
    return mission_pb2.MissionSpec(goal="try", template="self_test")


def schedule(**when: object) -> pb.Schedule:
    given = {"name": "tick", "spec": self_test(), **(when or {"every": Duration(seconds=60)})}
    return pb.Schedule(**given)  # pyright: ignore[reportArgumentType] -- its fields by name


def at(ms: int) -> Timestamp:
    moment = Timestamp()
    moment.FromMilliseconds(ms)
    return moment


@dataclass(frozen=True, slots=True)
class Timetable:
    """What a person does with schedules, and time."""

    clock: ManualClock
    stub: ScheduleServiceAsyncStub
    world: World

    @property
    def client(self) -> Client:
        return self.world.client

    async def create(self, request_id: str = "", **when: object) -> pb.Schedule:
        request = pb.CreateScheduleRequest(schedule=schedule(**when), request_id=request_id)
        return (await self.stub.CreateSchedule(request)).schedule

    async def get(self, schedule_id: str) -> pb.Schedule:
        return (await self.stub.GetSchedule(pb.GetScheduleRequest(schedule_id=schedule_id))).schedule

    async def pass_by(self, seconds: float) -> None:
        """Until the scheduler has done all there is to do then, also when it was busy while time passed."""
        journal = await self.world.runtime.shared(shared_journal)
        await self._asleep()
        await self.clock.advance(seconds)
        await self._asleep()
        cast(SqlJournal, journal)._hub.wake("")  # pyright: ignore[reportPrivateUsage] -- as from another process
        for _ in range(10):  # from the hub to the scheduler it is a few steps
            await asyncio.sleep(0)
        await self._asleep()

    async def _asleep(self) -> None:
        # The scheduler, who keeps tokens, who archives, and who looks after health.
        await self.clock.until_sleeping(3 + len(self.world.runtime.health.facts()))

    async def firings(self, schedule_id: str) -> Sequence[pb.Firing]:
        """The latest last."""
        found = await self.stub.ListFirings(pb.ListFiringsRequest(schedule_id=schedule_id))
        return list(reversed(found.firings))

    async def states(self, schedule_id: str) -> list[str]:
        return [
            pb.FiringState.Name(firing.state).removeprefix("FIRING_STATE_")
            for firing in await self.firings(schedule_id)
        ]

    async def end(self, run_id: str) -> None:
        """Lets a run succeed, and the scheduler hear of it."""
        await self.world.finish(await self.world.owned(run_id))
        await self.pass_by(0.001)

    async def mission(self) -> str:
        """One that is no schedule's, with a run that is under way."""
        created = await self.client.missions.CreateMission(mission_service_pb2.CreateMissionRequest(spec=self_test()))
        return created.mission.mission_id


class refused:  # noqa: N801 -- it reads as a sentence: `with refused(InvalidArgument) as why`
    """The typed error that a call must end with."""

    def __init__(self, kind: type[SkyError]) -> None:
        self._kind = kind
        self.error: SkyError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, grpc.aio.AioRpcError):
            pytest.fail(f"it was not refused by {self._kind.__name__}: {error!r}")
        self.error = from_rpc_error(error)
        assert isinstance(self.error, self._kind), repr(self.error)
        return True

    def __str__(self) -> str:
        return str(self.error)


def stub_of(channel: grpc.aio.Channel) -> ScheduleServiceAsyncStub:
    return ScheduleServiceStub(channel)
