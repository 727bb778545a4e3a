"""Puts together what several nodes on one database need, and one node alone does not."""

from __future__ import annotations

from control.journal import Journal
from control.orchestrator.links import WorkerLinks
from control.orchestrator.owner import Owner
from control.orchestrator.relay.leases import Questions
from control.orchestrator.relay.neighbours import Neighbours
from control.orchestrator.relay.reach import Relays
from control.orchestrator.relay.routes import Routes
from infra.channels import file_token
from infra.mesh import Runtime

LONGEST_LOOK = 1.0


def open_relays(runtime: Runtime, journal: Journal, owner: Owner, links: WorkerLinks) -> Routes:
    """What workers' streams talk to instead of the owner itself; it runs as long as the process serves."""
    neighbours = Neighbours(owner.node)
    owner.seen = neighbours.seen
    heartbeat = runtime.settings.lease.heartbeat
    routes = Routes(
        owner=owner,
        journal=journal,
        links=links,
        neighbours=neighbours,
        clock=runtime.clock,
        questions=Questions(runtime.clock, patience=heartbeat),
        look_seconds=min(LONGEST_LOOK, heartbeat / 2),
    )
    token = file_token(runtime.settings.internal_token_path)
    relays = Relays(links, owner, neighbours, runtime.clock, runtime.ids, token)
    runtime.background("orchestrator.routes", routes.run)
    runtime.background("orchestrator.relays", relays.run)
    return routes
