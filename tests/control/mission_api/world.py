"""mission-api in a mesh without an orchestrator: a test owns the runs itself and so decides what happens when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from control.core.run import FOLD_VERSION
from control.journal import Node, shared_journal
from control.orchestrator.commands import events_of
from control.orchestrator.ledger import Also, Ledger
from infra.auth import Role
from infra.mesh import Runtime
from skyagent.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceStub
from skyagent.budget.v1.budget_service_pb2_grpc import BudgetServiceStub
from skyagent.mission.v1 import mission_pb2
from skyagent.mission.v1 import mission_service_pb2 as missions_pb
from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceStub
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1.approval_service_pb2_grpc import ApprovalServiceStub
from skyagent.run.v1.run_service_pb2_grpc import RunServiceStub
from tests.control.meshed import CallingAs

if TYPE_CHECKING:
    from skyagent.artifact.v1.artifact_service_pb2_grpc import ArtifactServiceAsyncStub
    from skyagent.budget.v1.budget_service_pb2_grpc import BudgetServiceAsyncStub
    from skyagent.mission.v1.mission_service_pb2_grpc import MissionServiceAsyncStub
    from skyagent.run.v1.approval_service_pb2_grpc import ApprovalServiceAsyncStub
    from skyagent.run.v1.run_service_pb2_grpc import RunServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Client:
    """What somebody calls mission-api with."""

    missions: MissionServiceAsyncStub
    runs: RunServiceAsyncStub
    approvals: ApprovalServiceAsyncStub
    artifacts: ArtifactServiceAsyncStub
    budgets: BudgetServiceAsyncStub


@dataclass(frozen=True, slots=True)
class World:
    """The mesh, its client, and the owner of its runs."""

    runtime: Runtime
    client: Client

    async def create(
        self, limits: mission_pb2.Limits | None = None, **more: object
    ) -> missions_pb.CreateMissionResponse:
        spec = login()
        if limits is not None:
            spec.limits.CopyFrom(limits)
        request = missions_pb.CreateMissionRequest(spec=spec, **more)  # pyright: ignore[reportArgumentType]
        return await self.client.missions.CreateMission(request)

    async def owned(self, run_id: str) -> Ledger:
        """The run in the hands of a new owner."""
        journal = await self.runtime.shared(shared_journal)
        node = Node("test", self.runtime.ids.uuid())
        heads = await journal.claim(node, fold_version=FOLD_VERSION, limit=100)
        head = next(head for head in heads if head.run_id == run_id)
        ledger = Ledger(journal, self.runtime.clock, self.runtime.ids, head)
        await ledger.load()
        changed = ev.OwnerChanged(node_id=node.node_id, incarnation_id=node.incarnation, cause="created")
        await ledger.commit([ev.EventBody(owner_changed=changed)])
        return ledger

    async def apply_commands(self, ledger: Ledger) -> None:
        """What the owner does next after a command."""
        for command in await ledger.journal.pending_commands(ledger.head.run_id):
            await ledger.commit(events_of(command, ledger.folded), Also(applied=(command.cmd_id,)))

    async def finish(self, ledger: Ledger) -> None:
        """Ends the run well."""
        finished = ev.RunFinished(phase=ev.RUN_PHASE_SUCCEEDED, summary="done")
        await ledger.commit([ev.EventBody(run_finished=finished)])


def login(**inputs: str) -> mission_pb2.MissionSpec:
    """A mission that needs no file."""
    given = {
        "site": "http://127.0.0.1:9/",
        "login": "/login/",
        "username": "clerk",
        "password": "{{secret:clerk}}",
        "expect": "Welcome",
        **inputs,
    }
    spec = mission_pb2.MissionSpec(goal="sign in", template="login_flow")
    spec.inputs.extend(mission_pb2.Input(name=name, value=value) for name, value in given.items())
    return spec


def client_of(calling_as: CallingAs, runtime: Runtime, *, tenant: str = "default", role: Role = Role.ADMIN) -> Client:
    """Everything that somebody of a tenant can call."""
    channel = calling_as(runtime, tenant=tenant, role=role)
    return Client(
        MissionServiceStub(channel),
        RunServiceStub(channel),
        ApprovalServiceStub(channel),
        ArtifactServiceStub(channel),
        BudgetServiceStub(channel),
    )
