"""mission-api as a service of the mesh: missions, runs, approvals and budgets."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc

from control.agentfs import shared_agentfs
from control.budgets import shared_escrow
from control.journal import DATABASE, shared_journal
from control.mission_api.approvals import ApprovalServicer
from control.mission_api.budgets import BudgetServicer
from control.mission_api.missions import Missions, MissionServicer
from control.mission_api.preparing import Preparation
from control.mission_api.retention import Retention
from control.mission_api.run_service import RunServicer
from control.mission_api.runs import Runs
from control.mission_api.store import MissionStore
from control.templates import installed_templates
from infra.blobs import shared_blobs
from infra.db import shared_database
from infra.mesh import Register, Runtime, Service
from infra.metrics import catalogue as known
from skyagent.budget.v1 import budget_service_pb2, budget_service_pb2_grpc
from skyagent.mission.v1 import mission_service_pb2, mission_service_pb2_grpc
from skyagent.run.v1 import approval_service_pb2, approval_service_pb2_grpc, run_service_pb2, run_service_pb2_grpc


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncGenerator[Register]:
    journal = await runtime.shared(shared_journal)
    agentfs = await runtime.shared(shared_agentfs)
    escrow = await runtime.shared(shared_escrow)
    templates = installed_templates()
    preparation = Preparation(templates, await runtime.shared(shared_blobs), agentfs, dry_run=runtime.settings.dry_run)
    store = MissionStore(await runtime.shared(shared_database))
    runs = Runs(journal, runtime.clock, runtime.ids)
    missions = Missions(store, runs, preparation, agentfs, escrow, runtime.clock, runtime.ids)

    retention = Retention(journal, agentfs, runtime.clock, runtime.ids, runtime.settings.retention, runtime.metrics)
    runtime.background("mission_api.retention", retention.run)
    watchers = runtime.metrics.count(known.WATCHERS)

    def register(server: grpc.aio.Server) -> None:
        mission_service_pb2_grpc.add_MissionServiceServicer_to_server(MissionServicer(missions, templates), server)
        run_service_pb2_grpc.add_RunServiceServicer_to_server(
            RunServicer(journal, runs, missions, runtime.clock, runtime.draining, watchers, retention), server
        )
        approval_service_pb2_grpc.add_ApprovalServiceServicer_to_server(
            ApprovalServicer(journal, runs, runtime.ids), server
        )
        budget_service_pb2_grpc.add_BudgetServiceServicer_to_server(
            BudgetServicer(escrow, journal, runs, missions, runtime.ids), server
        )

    yield register


SERVICE = Service(
    "mission-api",
    (
        mission_service_pb2.DESCRIPTOR.services_by_name["MissionService"],
        run_service_pb2.DESCRIPTOR.services_by_name["RunService"],
        approval_service_pb2.DESCRIPTOR.services_by_name["ApprovalService"],
        budget_service_pb2.DESCRIPTOR.services_by_name["BudgetService"],
    ),
    _open,
    needs=(DATABASE,),
)
