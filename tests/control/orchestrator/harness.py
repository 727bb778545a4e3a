"""A real control plane in this process, a real worker dialled into it, and runs put straight into the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from control.core.run import FOLD_VERSION, RunFold, terminal
from control.journal import ApprovalDecision, ApprovalStatus, Command, EventDraft, Journal, NewRun, shared_journal
from control.journal.folding import event_of, folded_run
from control.orchestrator.service import SERVICE as ORCHESTRATOR
from control.policy_engine.service import SERVICE as POLICY_ENGINE
from execution.executor import Executor
from execution.noop import NoopExecutor
from execution.worker import WorkerSettings, run_worker
from infra.auth import prepare_identity, prepare_worker_token
from infra.clock import SystemClock
from infra.db import shared_database
from infra.ids import system_ids
from infra.mesh import Register, Runtime, Service, serving
from infra.settings import LeaseSettings, Settings
from infra.telemetry import telemetry
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

CLOCK = SystemClock()
IDS = system_ids(CLOCK)


def noop(title: str, effect: eff.EffectClass.ValueType = eff.EFFECT_CLASS_IDEMPOTENT) -> plan.PlanNode:
    """A step that does nothing, and says so of its effect."""
    action = act.Action(effect_class=effect, noop=act.NoopAction(payload=title.encode()))
    return plan.PlanNode(node_id=IDS.ulid(), title=title, step=plan.Step(action=action))


def settings_in(folder: Path, **changes: object) -> Settings:
    lease = LeaseSettings(ttl=1.0, heartbeat=0.2, grace=0.2)
    made = Settings(data_dir=folder, listen="127.0.0.1:0", lease=lease, drain_grace=1.0)
    made = made.model_copy(update=changes)
    prepare_identity(made, CLOCK, IDS)
    return made


@dataclass
class ControlPlane:
    """A control plane that tests can put runs into and follow."""

    runtime: Runtime
    journal: Journal

    async def start(
        self,
        nodes: Sequence[plan.PlanNode] = (),
        *,
        approval_ttl_ms: int = 0,
        max_wall_seconds: int = 0,
        draws: Sequence[ev.Draw] = (),
        **inputs: str,
    ) -> str:
        """A run of the self test, or of a plan that is given as a whole."""
        run_id = IDS.ulid()
        given = [mission.Input(name=name, value=value) for name, value in inputs.items()]
        spec = mission.MissionSpec(goal="try the mesh", template="self_test", inputs=given)
        if max_wall_seconds:
            spec.limits.max_wall_time.FromSeconds(max_wall_seconds)
        if approval_ttl_ms:
            spec.limits.approval_ttl.FromMilliseconds(approval_ttl_ms)
        created = ev.RunCreated(mission_id=IDS.ulid(), tenant="default", spec=spec, fold_version=FOLD_VERSION)
        events = [EventDraft.of(ev.EventBody(run_created=created))]
        if draws:
            events.append(EventDraft.of(ev.EventBody(run_budgeted=ev.RunBudgeted(draws=draws))))
        if nodes:
            events.append(EventDraft.of(ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes))))
        await self.journal.create_run(
            NewRun(run_id, created.mission_id, "default", FOLD_VERSION, tuple(events), append_id=IDS.ulid())
        )
        return run_id

    async def state(self, run_id: str) -> st.RunState:
        """What is durable now."""
        return (await folded_run(self.journal, run_id)).folded.state

    async def until_state(
        self, run_id: str, wanted: Callable[[st.RunState], bool], within: float = 10.0
    ) -> st.RunState:
        """The first state that is wanted."""
        folded = RunFold()
        async with asyncio.timeout(within):
            async for event in self.events(run_id):
                folded.apply(event)
                if wanted(folded.state):
                    return folded.state
        raise AssertionError("a tail never ends by itself")

    async def kinds(self, run_id: str) -> list[str]:
        """The kinds of all events so far."""
        stored = await self.journal.read(run_id)
        return [event_of(event).body.WhichOneof("kind") or "" for event in stored]

    async def until_ended(self, run_id: str, within: float = 20.0) -> st.RunState:
        folded = RunFold()
        async with asyncio.timeout(within):
            async for event in self.events(run_id):
                folded.apply(event)
                if terminal(folded.state.phase):
                    return folded.state
        raise AssertionError("a tail never ends by itself")

    async def until(self, run_id: str, kind: str, within: float = 10.0) -> ev.RunEvent:
        """The first event of a kind."""
        async with asyncio.timeout(within):
            async for event in self.events(run_id):
                if event.body.WhichOneof("kind") == kind:
                    return event
        raise AssertionError("a tail never ends by itself")

    async def events(self, run_id: str) -> AsyncGenerator[ev.RunEvent]:
        tail = self.journal.tail(run_id)
        try:
            async for stored in tail:
                yield event_of(stored)
        finally:
            await tail.aclose()

    async def command(self, run_id: str, command: cmd.Command) -> None:
        kind = (command.WhichOneof("kind") or "").upper()
        payload = command.SerializeToString()
        await self.journal.command(Command(IDS.uuid(), run_id, "default", kind, "ann", payload))

    async def decide(self, run_id: str, approval_id: str, status: ApprovalStatus = ApprovalStatus.GRANTED) -> None:
        """A person answers."""
        payload = cmd.Command(decide=cmd.DecideCommand(approval_id=approval_id)).SerializeToString()
        decision = ApprovalDecision(approval_id, status)
        await self.journal.command(Command(IDS.uuid(), run_id, "default", "DECIDE", "ann", payload, decision))

    async def sql(self, statement: str, *values: str) -> None:
        """Changes what only this test would change."""
        database = await self.runtime.shared(shared_database)
        await database.transact(lambda connection: connection.exec_driver_sql(statement, values))


@asynccontextmanager
async def control_plane(
    settings: Settings, services: Iterable[Service] = (POLICY_ENGINE, ORCHESTRATOR)
) -> AsyncGenerator[ControlPlane]:
    async with serving((*services, ONLOOKER), settings) as runtime:
        yield ControlPlane(runtime, await runtime.shared(shared_journal))


@asynccontextmanager
async def _journal_only(runtime: Runtime) -> AsyncGenerator[Register]:
    await runtime.shared(shared_journal)
    yield lambda _server: None


ONLOOKER = Service("onlooker", (), _journal_only)
"""Opens the journal where no other service does, so that it hears what other processes announce."""


@asynccontextmanager
async def worker(
    settings: Settings, address: str, executor: Executor | None = None, worker_id: str = "noop-1"
) -> AsyncGenerator[None]:
    token = prepare_worker_token(settings, CLOCK, IDS, worker_id)
    told = WorkerSettings(connect=address, data_dir=settings.data_dir, worker_id=worker_id, token_file=token)
    async with telemetry(settings, worker_id, IDS) as spans, asyncio.TaskGroup() as group:
        running = run_worker(executor or NoopExecutor(), told, clock=CLOCK, ids=IDS, telemetry=spans)
        task = group.create_task(running)
        try:
            yield
        finally:
            task.cancel()
