"""What a control plane says of its health while a part of it is away."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from pydantic import SecretStr

from control.orchestrator.service import SERVICE as ORCHESTRATOR
from control.policy_engine.service import SERVICE as POLICY_ENGINE
from infra.mesh import serving
from infra.settings import Settings
from skyagent.mesh.v1 import mesh_service_pb2 as pb
from skyagent.mesh.v1 import mesh_service_pb2_grpc as rpc
from tests.infra.peer import health_of
from tests.servers.postgres import PROGRAMS, run, started

WORKER_SERVICE, MESH_SERVICE = "skyagent.execution.v1.WorkerService", "skyagent.mesh.v1.MeshService"


@dataclass(frozen=True, slots=True)
class Told:
    """What an address says of itself."""

    address: str

    async def fact(self, name: str, state: pb.HealthState.ValueType) -> pb.HealthFact:
        """A fact, once it stands so."""
        async with asyncio.timeout(40), grpc.aio.insecure_channel(self.address) as channel:
            while True:
                answer = await rpc.MeshServiceStub(channel).GetHealth(pb.GetHealthRequest())
                for fact in answer.facts:
                    if (fact.name, fact.state) == (name, state):
                        return fact

    async def serving(self, service: str, said: str) -> None:
        """Returns once grpc.health.v1 says so."""
        async with asyncio.timeout(40):
            while await health_of(self.address, service) != said:
                pass


async def test_without_its_policy_engine_an_orchestrator_is_not_serving_until_it_is_back(
    tmp_path: Path, new_database: Callable[[], str], unused_tcp_port: int
) -> None:
    there = f"127.0.0.1:{unused_tcp_port}"
    common = Settings(data_dir=tmp_path, listen="127.0.0.1:0", database_url=SecretStr(new_database()))
    here = common.model_copy(update={"peers": {"policy-engine": there}})
    policy = common.model_copy(update={"listen": there, "node_id": "policy"})
    async with serving([ORCHESTRATOR], here) as runtime:
        told = Told(runtime.address)
        fact = await told.fact("policy-engine", pb.HEALTH_STATE_FAILING)
        assert "so nothing begins" in fact.detail
        await told.serving(WORKER_SERVICE, "NOT_SERVING")
        async with serving([POLICY_ENGINE], policy):
            await told.fact("policy-engine", pb.HEALTH_STATE_WELL)
            await told.serving(WORKER_SERVICE, "SERVING")
        await told.fact("policy-engine", pb.HEALTH_STATE_FAILING)


async def test_without_its_database_a_control_plane_says_so_and_lives_on(tmp_path: Path, unused_tcp_port: int) -> None:
    with TemporaryDirectory(prefix="skyagent-postgres-") as name:
        folder, port = Path(name), unused_tcp_port
        run(PROGRAMS / "initdb", "-D", str(folder / "data"), "-U", "skyagent", "-A", "trust", "-N")
        address = f"postgresql://skyagent@127.0.0.1:{port}/postgres"
        settings = Settings(data_dir=tmp_path / "data", listen="127.0.0.1:0", database_url=SecretStr(address))
        with ExitStack() as servers:  # the last of them outlives the control plane
            server = servers.enter_context(started(folder, port))
            async with serving([ORCHESTRATOR, POLICY_ENGINE], settings) as runtime:
                told = Told(runtime.address)
                await told.fact("database", pb.HEALTH_STATE_WELL)
                server.send_signal(signal.SIGQUIT)
                await asyncio.to_thread(server.wait)
                await told.fact("database", pb.HEALTH_STATE_FAILING)
                await told.serving(WORKER_SERVICE, "NOT_SERVING")
                await told.serving(MESH_SERVICE, "SERVING")
                servers.enter_context(started(folder, port))
                await told.fact("database", pb.HEALTH_STATE_WELL)
                await told.serving(WORKER_SERVICE, "SERVING")
