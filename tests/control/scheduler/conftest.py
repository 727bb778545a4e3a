from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import grpc
import pytest

from control.mission_api.service import SERVICE as MISSION_API
from control.scheduler.service import SERVICE
from infra.auth import Role, mint_token
from infra.channels import dial
from infra.clock import ManualClock, SystemClock
from infra.mesh import Runtime, serving
from infra.settings import Settings
from tests.control.meshed import CallingAs
from tests.control.mission_api.world import World, client_of
from tests.control.scheduler.world import Timetable, stub_of

LONG = 30 * 86_400.0


@pytest.fixture
async def calling_as(settings: Settings) -> AsyncGenerator[CallingAs]:
    """As everywhere, but the tokens outlive the hours that pass in these tests."""
    async with AsyncExitStack() as stack:

        def connect(runtime: Runtime, *, role: Role = Role.ADMIN, tenant: str = "default") -> grpc.aio.Channel:
            clock = SystemClock()
            token = mint_token(settings, clock, subject=f"{role}-of-{tenant}", tenant=tenant, role=role, ttl=LONG)
            channel = dial(runtime.address, token=lambda: token)
            stack.push_async_callback(channel.close)
            return channel

        yield connect


@pytest.fixture
async def timetable(settings: Settings, calling_as: CallingAs) -> AsyncGenerator[Timetable]:
    clock = ManualClock(SystemClock().now_ms())
    async with serving([MISSION_API, SERVICE], settings, clock=clock) as runtime:
        yield timetable_of(clock, calling_as, runtime)


@pytest.fixture
def stranger(timetable: Timetable, calling_as: CallingAs) -> Timetable:
    """The same as somebody of another tenant."""
    return timetable_of(timetable.clock, calling_as, timetable.world.runtime, tenant="other")


def timetable_of(clock: ManualClock, calling_as: CallingAs, runtime: Runtime, tenant: str = "default") -> Timetable:
    world = World(runtime, client_of(calling_as, runtime, tenant=tenant))
    return Timetable(clock, stub_of(calling_as(runtime, tenant=tenant)), world)
