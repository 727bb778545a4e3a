"""MeshService: what every process of the control plane says of itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import version
from types import MappingProxyType

import grpc
from google.api.httpbody_pb2 import HttpBody
from grpc_health.v1 import health, health_pb2

from infra.auth import caller
from infra.clock import Clock
from infra.health import Health, State, worst
from infra.metrics import Metrics
from infra.metrics.series import TEXT
from skyagent.mesh.v1 import mesh_service_pb2 as pb
from skyagent.mesh.v1 import mesh_service_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[object, object]

DESCRIPTOR = pb.DESCRIPTOR.services_by_name["MeshService"]
STATE_HEADER = "x-skyagent-health"
"""Tells the gateway how to answer; the body of HTTP has no place for a status."""
_STATES = MappingProxyType(
    {
        State.WELL: pb.HEALTH_STATE_WELL,
        State.DEGRADED: pb.HEALTH_STATE_DEGRADED,
        State.FAILING: pb.HEALTH_STATE_FAILING,
    }
)


class MeshServicer(rpc.MeshServiceServicer):
    """Translates."""

    def __init__(self, health_: Health, metrics: Metrics, clock: Clock, node_id: str) -> None:
        self._health = health_
        self._metrics = metrics
        self._clock = clock
        self._node_id = node_id
        self._began = clock.monotonic()

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context | None) -> pb.GetHealthResponse:
        facts = self._health.facts()
        state = worst(fact.state for fact in facts)
        answer = pb.GetHealthResponse(state=_STATES[state], node_id=self._node_id, version=version("skyagentos"))
        answer.uptime.FromMilliseconds(round((self._clock.monotonic() - self._began) * 1000))
        for fact in facts:
            told = answer.facts.add(name=fact.name, state=_STATES[fact.state], detail=fact.detail)
            told.age.FromMilliseconds(round(fact.age * 1000))
        if context is not None:
            await context.send_initial_metadata(((STATE_HEADER, state.name.lower()),))
        return answer

    async def GetMetrics(self, request: pb.GetMetricsRequest, context: Context | None) -> HttpBody:
        return HttpBody(content_type=TEXT, data=await self._metrics.text(caller().tenant))


class HealthBoard:
    """The facts as grpc.health.v1 knows them: each service by those it needs, "" by all of them.

    MeshService counts as serving while the process lives: that is what the gateway and supervisors ask for, since a
    process that cannot write still answers whoever reads.
    """

    def __init__(self, facts: Health, board: health.aio.HealthServicer, needs: Mapping[str, Collection[str]]) -> None:
        """`needs` is the facts by the full names of services."""
        self._facts, self._board, self._needs = facts, board, needs
        self._told: dict[str, bool] = {}

    async def tell(self) -> None:
        """Says what has changed."""
        failing = self._facts.failing()
        await self._say(health.OVERALL_HEALTH, serving=not failing)
        for service, needed in self._needs.items():
            await self._say(service, serving=failing.isdisjoint(needed))

    async def watch(self) -> None:
        """Until cancelled."""
        await self._facts.watch(self.tell)

    async def _say(self, service: str, *, serving: bool) -> None:
        if self._told.get(service) is not serving:
            self._told[service] = serving
            said = health_pb2.HealthCheckResponse
            await self._board.set(service, said.SERVING if serving else said.NOT_SERVING)
