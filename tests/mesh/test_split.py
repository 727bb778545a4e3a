"""Every service of the control plane in a process of its own, over one PostgreSQL: the same mesh as in one process."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from control.services import ALL
from evals.end_to_end.skyagent_mesh import free_ports
from infra.channels import Readiness, dial, file_token
from infra.settings import Settings
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1.run_service_pb2_grpc import RunServiceStub
from tests.control.orchestrator.harness import settings_in, worker

STEPS = 60


@dataclass
class Split:
    """The processes, by the name of their service; each knows where the others are."""

    settings: Settings
    database: str
    ports: dict[str, int] = field(default_factory=lambda: dict(zip(ALL, free_ports(len(ALL)), strict=True)))
    processes: dict[str, Process] = field(default_factory=dict[str, Process])

    def address(self, service: str) -> str:
        return f"127.0.0.1:{self.ports[service]}"

    async def start(self, service: str) -> None:
        peers = ", ".join(f'"{name}": "{self.address(name)}"' for name in ALL if name != service)
        env = os.environ | {
            "SKYAGENT_DATA_DIR": str(self.settings.data_dir),
            "SKYAGENT_DATABASE_URL": self.database,
            "SKYAGENT_LISTEN": self.address(service),
            "SKYAGENT_NODE_ID": service,
            "SKYAGENT_PEERS": f"{{{peers}}}",
        }
        command = (sys.executable, "-m", "gateway.cli", "serve", service)
        self.processes[service] = await asyncio.create_subprocess_exec(*command, env=env)

    async def kill(self, service: str) -> None:
        process = self.processes.pop(service)
        process.send_signal(signal.SIGKILL)
        await process.wait()

    def channel(self, service: str) -> grpc.aio.Channel:
        return dial(self.address(service), token=file_token(self.settings.token_path), readiness=Readiness.WAIT)


@asynccontextmanager
async def split(folder: Path, database: str) -> AsyncGenerator[Split]:
    mesh = Split(settings_in(folder), database)
    try:
        for service in ALL:
            await mesh.start(service)
        yield mesh
    finally:
        for service in list(mesh.processes):
            await mesh.kill(service)


async def seen(channel: grpc.aio.Channel, run_id: str, kind: str) -> None:
    """Until the run's journal has an event of this kind, or has ended."""
    async for item in RunServiceStub(channel).WatchRun(runs.WatchRunRequest(run_id=run_id)):
        if item.event.body.WhichOneof("kind") == kind or item.HasField("end"):
            return


@pytest.mark.timeout(120)
async def test_a_mission_ends_well_while_each_service_that_decides_is_killed_and_comes_back(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    async with (
        split(tmp_path, new_database()) as mesh,
        mesh.channel("mission-api") as channel,
        worker(mesh.settings, mesh.address("orchestrator")),
    ):
        spec = mission.MissionSpec(goal="try a mesh of many processes", template="self_test")
        spec.inputs.add(name="steps", value=str(STEPS))
        run_id = (await MissionServiceStub(channel).CreateMission(missions.CreateMissionRequest(spec=spec))).run_id
        await seen(channel, run_id, "step_finished")
        for service in ("policy-engine", "orchestrator"):
            await mesh.kill(service)
            await mesh.start(service)
        await seen(channel, run_id, "run_finished")
        run = (await RunServiceStub(channel).GetRun(runs.GetRunRequest(run_id=run_id))).run
        assert (run.phase, run.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, STEPS)
        assert run.counts.takeovers == 1
        proof = await RunServiceStub(channel).VerifyRun(runs.VerifyRunRequest(run_id=run_id))
        assert (proof.intact, proof.events) == (True, run.seq)
