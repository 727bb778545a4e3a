"""What the fixtures of tests/control/conftest.py are."""

from collections.abc import Awaitable, Iterable
from typing import Protocol

import grpc

from infra.auth import Role
from infra.mesh import Runtime, Service


class Serve(Protocol):
    """Starts services in this process."""

    def __call__(self, services: Iterable[Service], /) -> Awaitable[Runtime]: ...


class CallingAs(Protocol):
    """Opens a channel to a runtime in somebody's name."""

    def __call__(self, runtime: Runtime, *, role: Role = Role.ADMIN, tenant: str = "default") -> grpc.aio.Channel: ...
