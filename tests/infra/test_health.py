from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc

from infra.clock import ManualClock
from infra.errors import Unavailable
from infra.health import AGAIN, EVERY, PATIENCE, Fact, Finding, Health, State, worst
from infra.mesh import Register, Runtime, Service, serving
from infra.settings import Settings
from skyagent.execution.v1 import session_service_pb2_grpc as rpc
from skyagent.mesh.v1 import mesh_service_pb2 as mesh
from skyagent.mesh.v1 import mesh_service_pb2_grpc as mesh_rpc
from tests.infra.peer import SESSIONS, Sessions, health_of


class Part:
    """Something that can be away."""

    def __init__(self) -> None:
        self.looks = 0
        self.error: Exception | None = None
        self.answers = asyncio.Event()
        self.answers.set()

    async def look(self) -> Finding:
        self.looks += 1
        await self.answers.wait()
        if self.error is not None:
            raise self.error
        return Finding(State.WELL, "is there")


@asynccontextmanager
async def watched(clock: ManualClock, part: Part) -> AsyncGenerator[Health]:
    health = Health(clock)
    health.add("part", part.look)

    async def changed() -> None:
        pass

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(health.watch(changed))
        await clock.advance(0)
        yield health
        watching.cancel()


def of(health: Health, name: str = "part") -> Fact:
    return next(fact for fact in health.facts() if fact.name == name)


async def test_a_part_that_breaks_is_failing_and_says_why_until_it_is_mended() -> None:
    clock, part = ManualClock(), Part()
    async with watched(clock, part) as health:
        assert of(health).state is State.WELL
        part.error = Unavailable("AWAY", "the server at 10.0.0.1 is away")
        await clock.advance(EVERY)
        assert (of(health).state, of(health).detail) == (State.FAILING, "the server at 10.0.0.1 is away")
        assert health.failing() == {"part"}
        part.error = None
        await clock.advance(AGAIN)
        assert of(health).state is State.WELL


async def test_a_part_that_does_not_answer_is_failing_and_is_not_asked_again_meanwhile() -> None:
    clock, part = ManualClock(), Part()
    async with watched(clock, part) as health:
        part.answers.clear()
        await clock.advance(EVERY)
        looks = part.looks
        await clock.advance(PATIENCE + 1)
        assert of(health).state is State.FAILING
        assert "does not answer" in of(health).detail
        await clock.advance(60)
        assert part.looks == looks
        part.answers.set()
        await clock.advance(0)
        assert of(health).state is State.WELL


async def test_asking_looks_at_nothing() -> None:
    clock, part = ManualClock(), Part()
    async with watched(clock, part) as health:
        looks = part.looks
        for _ in range(100):
            health.facts()
        assert part.looks == looks


def test_a_whole_is_as_bad_as_its_worst_part() -> None:
    assert worst([State.WELL, State.FAILING, State.DEGRADED]) is State.FAILING
    assert worst([]) is State.WELL


async def test_each_service_is_as_well_as_what_it_needs(settings: Settings) -> None:
    part = Part()
    sessions = Sessions()  # pyright: ignore[reportAbstractUsage]

    @asynccontextmanager
    async def opened(runtime: Runtime) -> AsyncGenerator[Register]:
        runtime.health.add("part", part.look)
        yield lambda server: rpc.add_SessionServiceServicer_to_server(sessions, server)

    async with serving([Service("sessions", (SESSIONS,), opened, needs=("part",))], settings) as runtime:
        part.error = Unavailable("AWAY", "the part is away")
        async with grpc.aio.insecure_channel(runtime.address) as channel, asyncio.timeout(30):
            while await health_of(runtime.address, SESSIONS.full_name) != "NOT_SERVING":
                pass
            assert await health_of(runtime.address, "") == "NOT_SERVING"
            assert await health_of(runtime.address, "skyagent.mesh.v1.MeshService") == "SERVING"
            answer = await mesh_rpc.MeshServiceStub(channel).GetHealth(mesh.GetHealthRequest())
    assert answer.state == mesh.HEALTH_STATE_FAILING
    assert {fact.name: fact.detail for fact in answer.facts}["part"] == "the part is away"
