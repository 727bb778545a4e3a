"""Real processes on fixed ports, so that those who were not killed find the others again; and a person's client."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import grpc

from control.core.run import RunFold
from infra.auth import prepare_identity, prepare_worker_token
from infra.channels import Readiness, dial, file_token
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.processes import ProcessId, end_group, find_marked
from infra.settings import Settings
from skyagent.artifact.v1 import artifact_service_pb2 as artifacts
from skyagent.artifact.v1 import artifact_service_pb2_grpc as artifacts_rpc
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.mission.v1 import mission_service_pb2_grpc as missions_rpc
from skyagent.run.v1 import approval_service_pb2 as approvals
from skyagent.run.v1 import approval_service_pb2_grpc as approvals_rpc
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from skyagent.run.v1 import run_service_pb2_grpc as runs_rpc
from skyagent.run.v1 import state_pb2 as st
from tests.chaos.invariants import Campaign, Violation, violations
from tests.chaos.witness import recorded, sent

SERVICES = ("artifact-service", "mission-api", "orchestrator", "policy-engine")
PATIENCE = 90.0
CLOCK = SystemClock()
IDS = system_ids(CLOCK)


class Life:
    """One process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def end(self) -> int:
        """Waits until it has ended; how: negative is the signal."""
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def kill(self) -> None:
        """As `kill -9` does."""
        await self._told(signal.SIGKILL)

    @property
    def lives(self) -> bool:
        return self._process.returncode is None

    def tell(self, number: signal.Signals) -> None:
        """Sends a signal and waits for nothing."""
        if self.lives:
            self._process.send_signal(number)

    async def stop(self) -> None:
        """In order, as `kill` does."""
        await self._told(signal.SIGTERM)

    async def _told(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self.end()


class Stage:
    """The processes of a mesh without a supervisor: the test starts and kills them."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_dir=folder / "data", listen=f"127.0.0.1:{free_port()}")
        self.marker = str(uuid4())
        self.campaign = Campaign(self.settings, marker=self.marker)
        self.lives: list[Life] = []
        self._log = folder / "processes.log"
        self.witness = folder / "witness"
        self.witness.mkdir()
        self._env = os.environ | {
            "SKYAGENT_DATA_DIR": str(self.settings.data_dir),
            "SKYAGENT_LISTEN": self.settings.listen,
            "SKYAGENT_LEASE__TTL": "3",
            "SKYAGENT_LEASE__HEARTBEAT": "1",
            "SKYAGENT_LEASE__GRACE": "1",
            "SKYAGENT_MARKER": self.marker,
        }
        prepare_identity(self.settings, CLOCK, IDS)
        prepare_worker_token(self.settings, CLOCK, IDS, "browser-1")

    async def control_plane(self, *flags: str, names: Sequence[str] = SERVICES, **env: str) -> Life:
        return await self._start(["tests.chaos.control_plane", str(self.witness), *flags, *names], env)

    async def worker(self, kind: str, crash_at: str = "") -> Life:
        """The worker of the command line, with somebody who writes down what it records."""
        command = ["worker", kind, "--crash-at", crash_at]
        return await self._start(["tests.chaos.witnessed_worker", str(self.witness), *command], {})

    async def mission(self, spec: mission.MissionSpec, rows: str, **inputs: str) -> str:
        """A run that waits for its first orchestrator; the id. It enters rows where nobody can ask about them."""
        taking = await self.control_plane(names=["artifact-service", "mission-api"])
        token = file_token(self.settings.token_path)
        async with dial(self.settings.listen, token=token, readiness=Readiness.WAIT, deadline=PATIENCE) as channel:
            table = artifacts.UploadFileRequest(data=rows.encode(), media_type="text/csv")
            stored = (await artifacts_rpc.ArtifactServiceStub(channel).UploadFile(table)).blob
            spec.files.add(digest=stored.digest, size=stored.size, media_type="text/csv", role="rows")
            spec.template = "data_entry"
            for name, value in {"proof": "none", **inputs}.items():
                spec.inputs.add(name=name, value=value)
            request = missions.CreateMissionRequest(spec=spec, request_id=IDS.uuid())
            created = await missions_rpc.MissionServiceStub(channel).CreateMission(request)
        await taking.stop()
        return created.run_id

    async def paper_worker(self, *flags: str, crash_at: str = "", **env: str) -> Life:
        return await self._start(["tests.chaos.paper_worker", str(self.witness), *flags, "--crash-at", crash_at], env)

    async def policy_engine(self, folder: Path) -> tuple[Life, str]:
        """A policy engine of its own with its own data, and where it listens."""
        shutil.copytree(self.settings.keys_dir, folder / "keys")
        address = f"127.0.0.1:{free_port()}"
        return await self.policy_engine_again(folder, address), address

    async def policy_engine_again(self, folder: Path, address: str) -> Life:
        env = {"SKYAGENT_DATA_DIR": str(folder), "SKYAGENT_LISTEN": address}
        return await self.control_plane(names=["policy-engine"], **env)

    async def _start(self, module: Sequence[str], env: dict[str, str]) -> Life:
        with self._log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", *module, env=self._env | env, stdout=log, stderr=log
            )
        self.lives.append(Life(process))
        return self.lives[-1]

    async def findings(self, effects: Mapping[str, int]) -> list[Violation]:
        """Ends every process in order, the last one started first, and says which invariants do not hold."""
        while self.lives:
            await self.lives.pop().stop()
        self.campaign.effects = effects
        self.campaign.sent, self.campaign.recorded = sent(self.witness), recorded(self.witness)
        return await violations(self.campaign)

    async def kill_everything(self) -> None:
        """Every process that still lives, as `kill -9` does."""
        while self.lives:
            await self.lives.pop().kill()


class Person:
    """Somebody with a client. Calls wait while the control plane is away."""

    def __init__(self, channel: grpc.aio.Channel, watched: Callable[[ev.RunEvent], None]) -> None:
        self._watched = watched
        self.runs: runs_rpc.RunServiceAsyncStub = runs_rpc.RunServiceStub(channel)
        self.approvals: approvals_rpc.ApprovalServiceAsyncStub = approvals_rpc.ApprovalServiceStub(channel)

    async def is_heard(self) -> None:
        """Returns once the control plane answers: a call by the socket of a killed one would break."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.approvals.ListApprovals(approvals.ListApprovalsRequest())
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                else:
                    return

    async def sees(self, run_id: str, wanted: Callable[[st.RunState], bool]) -> st.RunState:
        """The first state from now on that is wanted, however often the control plane dies meanwhile."""
        folded = RunFold()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    watch = self.runs.WatchRun(runs.WatchRunRequest(run_id=run_id, after_seq=folded.state.seq))
                    async for item in watch:
                        if item.HasField("event"):
                            self._watched(item.event)
                            folded.apply(item.event)
                        if item.HasField("event") and wanted(folded.state):
                            head = (await self.runs.GetRun(runs.GetRunRequest(run_id=run_id))).run
                            if head.seq == folded.state.seq:
                                return folded.state
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise

    async def state(self, run_id: str) -> st.RunState:
        return (await self.runs.GetRun(runs.GetRunRequest(run_id=run_id))).run

    async def answers(self, asked: st.ApprovalRecord) -> None:
        """Says yes."""
        yes = ev.APPROVAL_STATE_GRANTED
        request = approvals.DecideApprovalRequest(
            approval_id=asked.approval_id, decision=yes, action_digest=asked.action_digest
        )
        await self.approvals.DecideApproval(request)


@asynccontextmanager
async def staged(folder: Path) -> AsyncGenerator[tuple[Stage, Person]]:
    """A stage and a person; in the end nothing is left running."""
    stage = Stage(folder)
    token = file_token(stage.settings.token_path)
    try:
        async with dial(stage.settings.listen, token=token, readiness=Readiness.WAIT, deadline=PATIENCE) as channel:
            yield stage, Person(channel, stage.campaign.watched)
    finally:
        await stage.kill_everything()
        for process in find_marked(stage.marker):
            await _ended(process)


async def _ended(process: ProcessId) -> None:
    if process.pid != os.getpid():
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        await end_group(process, CLOCK, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
