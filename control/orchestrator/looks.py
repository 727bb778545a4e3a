"""What is looked at of an orchestrator: that it claims runs, that policy answers, and that there are workers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import grpc

from control.orchestrator.links import WorkerLinks
from control.orchestrator.measures import read_runs, read_workers
from control.orchestrator.owner import POLL_SECONDS, Owner
from infra.auth import SYSTEM_TENANT, acting_for
from infra.health import Finding, State
from infra.mesh import Runtime
from infra.metrics import Reading
from infra.status import from_rpc_error
from skyagent.policy.v1 import policy_service_pb2 as policy

if TYPE_CHECKING:
    from skyagent.policy.v1.policy_service_pb2_grpc import PolicyServiceAsyncStub

ORCHESTRATOR, POLICY_ENGINE, WORKERS = "orchestrator", "policy-engine", "workers"
"""Names of the facts."""
LONGEST_IDLE = 5 * POLL_SECONDS
POLICY_SECONDS = 3.0


def look_after(runtime: Runtime, owner: Owner, links: WorkerLinks, engine: PolicyServiceAsyncStub) -> None:
    """Adds the facts and the readings of an orchestrator to its process."""
    runtime.health.add(ORCHESTRATOR, partial(look_at_owner, owner))
    runtime.health.add(POLICY_ENGINE, partial(look_at_policy, engine))
    runtime.health.add(WORKERS, partial(look_at_workers, links))

    async def read() -> Sequence[Reading]:
        states = [driver.ledger.state for driver in owner.drivers.values()]
        return (*read_runs(states), *read_workers(links))

    runtime.metrics.read(read)


async def look_at_owner(owner: Owner) -> Finding:
    """Whether runs are being claimed and driven."""
    idle = owner.idle_seconds()
    if idle > LONGEST_IDLE:
        told = f"it has claimed no runs for {idle:.0f} s: the database does not answer, or its loop hangs"
        return Finding(State.FAILING, told)
    return Finding(State.WELL, f"drives {len(owner.drivers)} runs")


async def look_at_policy(engine: PolicyServiceAsyncStub) -> Finding:
    """Whether policy answers: without it nothing begins."""
    try:
        with acting_for(SYSTEM_TENANT):
            answer = await engine.GetBundle(policy.GetBundleRequest(), timeout=POLICY_SECONDS)
    except grpc.aio.AioRpcError as error:
        return Finding(State.FAILING, f"does not answer, so nothing begins: {from_rpc_error(error).message}")
    return Finding(State.WELL, f"judges by bundle {answer.bundle.digest[:11]}")


async def look_at_workers(links: WorkerLinks) -> Finding:
    """Whether a run waits for a kind of worker of which there is none."""
    missing = sorted(kind for kind in links.wanted() if not links.connected(kind))
    if missing:
        told = ", ".join(
            f"{links.wanted()[kind]} runs wait for a {kind} worker and none is connected" for kind in missing
        )
        return Finding(State.DEGRADED, f"{told}; start one with `skyagent worker {missing[0]}`")
    there = ", ".join(f"{count} {kind}" for kind, count in links.kinds().items())
    return Finding(State.WELL, f"{there} connected" if there else "none is connected, and none is waited for")
