"""Connections to the services behind a gateway: what every client in Python starts from."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from infra.channels import dial, file_token
from infra.errors import SkyError, Unavailable
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from skyagent.budget.v1.budget_service_pb2_grpc import BudgetServiceStub
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.policy.v1.policy_service_pb2_grpc import PolicyServiceStub
from skyagent.run.v1.approval_service_pb2_grpc import ApprovalServiceStub
from skyagent.run.v1.run_service_pb2_grpc import RunServiceStub
from skyagent.schedule.v1.schedule_service_pb2_grpc import ScheduleServiceStub

if TYPE_CHECKING:
    from skyagent.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub
    from skyagent.budget.v1.budget_service_pb2_grpc import BudgetServiceAsyncStub
    from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceAsyncStub
    from skyagent.policy.v1.policy_service_pb2_grpc import PolicyServiceAsyncStub
    from skyagent.run.v1.approval_service_pb2_grpc import ApprovalServiceAsyncStub
    from skyagent.run.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from skyagent.schedule.v1.schedule_service_pb2_grpc import ScheduleServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Services:
    """Stubs of what the gateway leads to."""

    missions: MissionServiceAsyncStub
    runs: RunServiceAsyncStub
    approvals: ApprovalServiceAsyncStub
    artifacts: ArtifactServiceAsyncStub
    policy: PolicyServiceAsyncStub
    schedules: ScheduleServiceAsyncStub
    budgets: BudgetServiceAsyncStub


@asynccontextmanager
async def connected(settings: Settings) -> AsyncGenerator[Services]:
    """The services behind the gateway of these settings, as the person at this machine."""
    address = f"{settings.gateway.host}:{settings.gateway.port}"
    async with dial(address, token=file_token(settings.token_path)) as channel:
        yield Services(
            MissionServiceStub(channel),
            RunServiceStub(channel),
            ApprovalServiceStub(channel),
            ArtifactServiceStub(channel),
            PolicyServiceStub(channel),
            ScheduleServiceStub(channel),
            BudgetServiceStub(channel),
        )


def explained(error: grpc.aio.AioRpcError, settings: Settings) -> SkyError:
    """The typed error; one that only says that nobody answered says what to do about it."""
    typed = from_rpc_error(error)
    return no_mesh(settings) if typed.reason == "UNAVAILABLE" else typed


def no_mesh(settings: Settings) -> Unavailable:
    """Nobody answers where the gateway should be."""
    address = f"{settings.gateway.host}:{settings.gateway.port}"
    return Unavailable(
        "NO_MESH", f"no mesh answers at {address}; start one with `skyagent up --detach`", address=address
    )
