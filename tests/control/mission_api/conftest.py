from __future__ import annotations

import pytest

from control.artifact_service.service import SERVICE as ARTIFACT_SERVICE
from control.mission_api.service import SERVICE
from tests.control.meshed import CallingAs, Serve
from tests.control.mission_api.world import Client, World, client_of


@pytest.fixture
async def world(serve: Serve, calling_as: CallingAs) -> World:
    runtime = await serve([SERVICE, ARTIFACT_SERVICE])
    return World(runtime, client_of(calling_as, runtime))


@pytest.fixture
def stranger(world: World, calling_as: CallingAs) -> Client:
    """The same as somebody of another tenant."""
    return client_of(calling_as, world.runtime, tenant="other")
