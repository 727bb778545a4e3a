"""The orchestrator as a service of the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import grpc

from control.agentfs import shared_agentfs
from control.budgets import shared_escrow
from control.core.fairness import Admission, Turns
from control.journal import DATABASE, Node, RunHead, shared_journal
from control.orchestrator.attempts import Attempts
from control.orchestrator.drawing import Drawing, Returns
from control.orchestrator.driver import Driver
from control.orchestrator.joining import Joining
from control.orchestrator.judging import Judge
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import WorkerLinks
from control.orchestrator.living import Living
from control.orchestrator.looks import ORCHESTRATOR, POLICY_ENGINE, look_after
from control.orchestrator.measures import Measures
from control.orchestrator.open_intents import OpenIntents
from control.orchestrator.own_steps import OwnSteps
from control.orchestrator.owner import Owner
from control.orchestrator.queueing import Queueing
from control.orchestrator.relay.opening import open_relays
from control.orchestrator.relay.service import RelayServicer
from control.orchestrator.results import Results
from control.orchestrator.stream import WorkerServicer
from control.templates import installed_templates
from infra.blobs import shared_blobs
from infra.mesh import Register, Runtime, Service
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import relay_service_pb2_grpc as relay_rpc
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.execution.v1 import worker_service_pb2_grpc as rpc
from skyagent.policy.v1 import policy_service_pb2_grpc as policy_rpc


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncGenerator[Register]:
    journal = await runtime.shared(shared_journal)
    blobs = await runtime.shared(shared_blobs)
    agentfs = await runtime.shared(shared_agentfs)
    escrow = await runtime.shared(shared_escrow)
    node = Node(runtime.settings.node_id, runtime.ids.uuid())
    policy = policy_rpc.PolicyServiceStub(runtime.channel("policy-engine"))
    judge = Judge(policy, runtime.near("policy-engine"))
    turns = Turns(runtime.settings.limits.tenant_weights)
    links, templates = WorkerLinks(turns=turns), installed_templates()
    measures = Measures(runtime.metrics)
    ownership, lease = runtime.settings.ownership, runtime.settings.lease

    def new_driver(head: RunHead) -> Driver:
        ledger = Ledger(journal, runtime.clock, runtime.ids, head, measures=measures)
        attempts = Attempts(ledger, links, judge, ledger.clock, runtime.ids, runtime.telemetry)
        woken = asyncio.Event()
        results = Results(ledger, agentfs, blobs, woken, partial(Joining, attempts))
        return Driver(
            ledger=ledger,
            attempts=attempts,
            own_steps=OwnSteps(ledger, blobs, agentfs, runtime.ids, templates),
            results=results,
            intents=OpenIntents(
                ledger, links, attempts, results, ledger.clock, runtime.settings.lease, ledger.clock.monotonic()
            ),
            drawing=Drawing(ledger, escrow),
            links=links,
            clock=ledger.clock,
            ids=runtime.ids,
            node_id=node.node_id,
            incarnation=node.incarnation,
            woken=woken,
        )

    living = Living(runtime.clock, ownership.ttl)
    address = runtime.settings.advertise or runtime.address
    owner = Owner(journal, node, runtime.clock, runtime.ids, new_driver, living, ownership.beat, measures, address)
    most, weights = runtime.settings.limits.active_runs_per_tenant, runtime.settings.limits.tenant_weights
    if most is not None:
        owner.queueing = Queueing(journal, Admission(most, weights), lambda head: new_driver(head).ledger)
    routes = open_relays(runtime, journal, owner, links) if journal.shared else None
    servicer = WorkerServicer(links, routes or owner, blobs, runtime.clock, runtime.ids, lease, node.node_id)
    runtime.background("orchestrator.owner", owner.run)
    runtime.background("orchestrator.returns", Returns(journal, escrow, runtime.clock).run)
    look_after(runtime, owner, links, policy)

    def register(server: grpc.aio.Server) -> None:
        rpc.add_WorkerServiceServicer_to_server(servicer, server)
        if routes is not None:
            relay_rpc.add_RelayServiceServicer_to_server(RelayServicer(routes, node), server)

    yield register


SERVICE = Service(
    "orchestrator",
    (wire.DESCRIPTOR.services_by_name["WorkerService"], relay.DESCRIPTOR.services_by_name["RelayService"]),
    _open,
    needs=(DATABASE, ORCHESTRATOR, POLICY_ENGINE),
)
