"""Services as they really run: in a mesh, called through authenticated channels."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from infra.auth import Role, mint_token
from infra.channels import dial
from infra.clock import SystemClock
from infra.mesh import Runtime, Service, serving
from infra.settings import Settings
from tests.control.meshed import CallingAs, Serve


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", listen="127.0.0.1:0", drain_grace=1.0)


@pytest.fixture
async def serve(settings: Settings) -> AsyncGenerator[Serve]:
    """Starts services in this process; they drain when the test ends."""
    async with AsyncExitStack() as stack:

        async def start(services: Iterable[Service]) -> Runtime:
            return await stack.enter_async_context(serving(services, settings))

        yield start


@pytest.fixture
async def calling_as(settings: Settings) -> AsyncGenerator[CallingAs]:
    """A channel to a runtime for somebody: `calling_as(runtime, role=…, tenant=…)`."""
    async with AsyncExitStack() as stack:

        def connect(runtime: Runtime, *, role: Role = Role.ADMIN, tenant: str = "default") -> grpc.aio.Channel:
            token = mint_token(
                settings, SystemClock(), subject=f"{role}-of-{tenant}", tenant=tenant, role=role, ttl=600
            )
            channel = dial(runtime.address, token=lambda: token)
            stack.push_async_callback(channel.close)
            return channel

        yield connect
