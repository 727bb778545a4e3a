"""Two real processes that look after the same schedules on one PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from evals.end_to_end.skyagent_mesh import free_ports
from infra.auth import Role, mint_token, prepare_identity
from infra.channels import Readiness, dial
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import Settings
from skyagent.mission.v1 import mission_service_pb2 as missions_pb
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.schedule.v1 import schedule_service_pb2 as pb
from tests.control.scheduler.scheduler_process import JOINTS
from tests.control.scheduler.world import at, schedule, stub_of

if TYPE_CHECKING:
    from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceAsyncStub
    from skyagent.schedule.v1.schedule_service_pb2_grpc import ScheduleServiceAsyncStub

CLOCK = SystemClock()
MANY = 6
WITHIN = 30.0


@dataclass(frozen=True)
class Other:
    """A process, and its services."""

    process: Process
    schedules: ScheduleServiceAsyncStub
    missions: MissionServiceAsyncStub


@asynccontextmanager
async def other(node: str, folder: Path, address: str, joint: str = "") -> AsyncGenerator[Other]:
    port = free_ports(1)[0]
    env = os.environ | {
        "SKYAGENT_DATA_DIR": str(folder),
        "SKYAGENT_LISTEN": f"127.0.0.1:{port}",
        "SKYAGENT_NODE_ID": node,
        "SKYAGENT_DATABASE_URL": address,
    }
    module = "tests.control.scheduler.scheduler_process"
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", module, *filter(None, [joint]), env=env)
    settings = Settings(data_dir=folder)
    prepare_identity(settings, CLOCK, system_ids(CLOCK))
    try:
        async with dial(f"127.0.0.1:{port}", token=lambda: _token(settings), readiness=Readiness.WAIT) as channel:
            yield Other(process, stub_of(channel), MissionServiceStub(channel))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _token(settings: Settings) -> str:
    return mint_token(settings, CLOCK, subject="ann", tenant="default", role=Role.ADMIN, ttl=600)


async def until_started(stub: ScheduleServiceAsyncStub, schedule_id: str) -> pb.Firing:
    """The one firing of a schedule, once it has its run."""
    async with asyncio.timeout(WITHIN):
        while True:
            found = (await stub.ListFirings(pb.ListFiringsRequest(schedule_id=schedule_id))).firings
            if found and found[0].state == pb.FIRING_STATE_STARTED:
                (firing,) = found
                return firing
            await asyncio.sleep(0.1)  # what another process writes tells nobody here


@pytest.mark.parametrize("joint", JOINTS)
async def test_every_due_time_has_one_run_at_whatever_joint_a_scheduler_is_killed(
    tmp_path: Path, new_database: Callable[[], str], joint: str
) -> None:
    address = new_database()
    async with other("healthy", tmp_path, address) as healthy:
        assert not (await healthy.schedules.ListSchedules(pb.ListSchedulesRequest())).schedules
        async with other("dying", tmp_path, address, joint) as dying:
            await dying.schedules.ListSchedules(pb.ListSchedulesRequest())
            first_ms = CLOCK.now_ms() + 1_000
            made = [
                (await healthy.schedules.CreateSchedule(_once(first_ms + number * 200))).schedule
                for number in range(MANY)
            ]
            healthy.process.send_signal(signal.SIGSTOP)
            assert await asyncio.wait_for(dying.process.wait(), WITHIN) == -signal.SIGKILL
        healthy.process.send_signal(signal.SIGCONT)
        firings = [await until_started(healthy.schedules, one.schedule_id) for one in made]
        missions = (await healthy.missions.ListMissions(missions_pb.ListMissionsRequest())).missions
        runs = {mission.mission_id: (mission.run_count, mission.current_run_id) for mission in missions}
        assert runs == {one.mission_id: (1, firing.run_id) for one, firing in zip(made, firings, strict=True)}


async def test_two_that_look_after_the_same_times_start_each_once(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    address = new_database()
    async with other("one", tmp_path, address) as one, other("two", tmp_path, address) as two:
        await two.schedules.ListSchedules(pb.ListSchedulesRequest())
        moment_ms = CLOCK.now_ms() + 2_000
        made = [(await one.schedules.CreateSchedule(_once(moment_ms))).schedule for _ in range(20)]
        for each in made:
            await until_started(two.schedules, each.schedule_id)
        missions = (await one.missions.ListMissions(missions_pb.ListMissionsRequest())).missions
        assert [mission.run_count for mission in missions] == [1] * 20


def _once(moment_ms: int) -> pb.CreateScheduleRequest:
    return pb.CreateScheduleRequest(schedule=schedule(at=at(moment_ms)))
