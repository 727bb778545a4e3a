"""What the tests of the worker share."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from tests.execution.actors import Actor
from tests.execution.control_plane import ControlPlane, control_plane


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


@pytest.fixture
def actor() -> Actor:
    return Actor()
