"""A rolling upgrade: nodes of two fold versions on one PostgreSQL, as real processes, with runs in flight."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from pydantic import SecretStr

from control.core.run import FOLD_VERSION
from evals.end_to_end.skyagent_mesh import free_ports
from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.channels import Readiness, dial, file_token
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.execution.v1.action_pb2 import Outcome
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.mission.v1.mission_pb2 import Input, MissionSpec
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1.run_service_pb2_grpc import RunServiceStub
from tests.control.orchestrator import older_node
from tests.control.orchestrator.harness import ControlPlane, control_plane, settings_in, worker

OLDER, NEWER = "tests.control.orchestrator.older_node", "gateway.cli"
STEPS = 20


class Held(NoopExecutor):
    """Does the first steps of every run, and the others once it may."""

    FIRST = 5

    def __init__(self, let_go: asyncio.Event) -> None:
        super().__init__()
        self._let_go = let_go
        self._done = Counter[str]()

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        self._done[assignment.run_id] += 1
        if self._done[assignment.run_id] > self.FIRST:
            await self._let_go.wait()
        return await super().execute(assignment, blobs, progress)


@asynccontextmanager
async def node(program: str, settings: Settings) -> AsyncGenerator[Process]:
    """A control plane of its own; killed at the end if it still runs."""
    assert settings.database_url is not None
    env = os.environ | {
        "SKYAGENT_DATA_DIR": str(settings.data_dir),
        "SKYAGENT_LISTEN": settings.listen,
        "SKYAGENT_NODE_ID": settings.node_id,
        "SKYAGENT_DATABASE_URL": settings.database_url.get_secret_value(),
        "SKYAGENT_LEASE__TTL": "1",
        "SKYAGENT_LEASE__HEARTBEAT": "0.2",
        "SKYAGENT_LEASE__GRACE": "0.2",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", program, "serve", "all", env=env)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class Client:
    """A person who talks to one node."""

    def __init__(self, settings: Settings) -> None:
        self.channel = dial(settings.listen, token=file_token(settings.token_path), readiness=Readiness.WAIT)
        self.runs = RunServiceStub(self.channel)

    async def start(self) -> str:
        """The id of a new run; the node may not listen yet."""
        spec = MissionSpec(goal="try the mesh", template="self_test", inputs=[Input(name="steps", value=str(STEPS))])
        request = missions.CreateMissionRequest(spec=spec)
        return (await MissionServiceStub(self.channel).CreateMission(request)).run_id


async def owned_by(plane: ControlPlane, run_id: str, node_id: str) -> ev.RunEvent:
    async with asyncio.timeout(30):
        async for event in plane.events(run_id):
            if event.body.owner_changed.node_id == node_id:
                return event
    raise AssertionError("a tail never ends by itself")


async def test_runs_roll_over_to_a_newer_node_and_never_back(tmp_path: Path, new_database: Callable[[], str]) -> None:
    address = SecretStr(new_database())
    older, newer = (
        settings_in(tmp_path, node_id=name, listen=f"127.0.0.1:{port}", database_url=address)
        for name, port in zip(("older", "newer"), free_ports(2), strict=True)
    )
    let_go = asyncio.Event()
    onlooker = settings_in(tmp_path, node_id="onlooker", database_url=address)
    async with (
        control_plane(onlooker, services=()) as person,
        worker(onlooker, older.listen, Held(let_go), worker_id="beside-the-older"),
        worker(onlooker, newer.listen, Held(let_go), worker_id="beside-the-newer"),
    ):
        async with node(OLDER, older) as first:
            in_flight = [await Client(older).start() for _ in range(4)]
            for run_id in in_flight:
                await person.until(run_id, "step_finished", within=30)
                assert (await person.journal.head(run_id)).fold_version == older_node.FOLD_VERSION
            async with node(NEWER, newer) as second:
                await owned_by(person, await Client(newer).start(), "newer")
                first.send_signal(signal.SIGTERM)
                for run_id in in_flight:
                    taken = (await owned_by(person, run_id, "newer")).body.owner_changed
                    assert taken.fold_version == FOLD_VERSION
                second.send_signal(signal.SIGTERM)
                await second.wait()

        async with node(OLDER, older):
            alone = await Client(older).start()
            taken = (await owned_by(person, alone, "older")).body.owner_changed  # it has looked for what is free
            assert taken.fold_version == older_node.FOLD_VERSION
            for run_id in in_flight:
                head = await person.journal.head(run_id)
                assert (head.owner_node, head.fold_version, head.terminal) == (None, FOLD_VERSION, False)
                with pytest.raises(grpc.aio.AioRpcError, match="needs a newer node") as refused:
                    await Client(older).runs.GetRun(runs.GetRunRequest(run_id=run_id))
                assert from_rpc_error(refused.value).reason == "FOLD_TOO_NEW"

            let_go.set()
            async with node(NEWER, newer):
                for run_id in (*in_flight, alone):
                    state = await person.until_ended(run_id, within=40)
                    assert (state.phase, state.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, STEPS)
                    assert (await person.journal.verify(run_id)).bad_seq is None
