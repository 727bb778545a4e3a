"""Both neighbours of the orchestrator, spoken by hand: a worker on the real stream, a policy engine over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import uuid4

import grpc

from infra.auth import prepare_worker_token
from infra.channels import dial, file_token
from infra.digest import digest_message
from infra.mesh import Register, Runtime, Service
from infra.settings import Settings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.execution.v1 import worker_service_pb2_grpc as rpc
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.policy.v1 import policy_service_pb2 as policy_api
from skyagent.policy.v1 import policy_service_pb2_grpc as policy_rpc
from tests.control.orchestrator.harness import CLOCK, IDS

PATIENCE = 10.0

Judging = Callable[[policy_api.CheckRequest], Awaitable[pol.Verdict.ValueType]]


async def allow(_request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
    return pol.VERDICT_ALLOW


def policy(judging: Judging) -> Service:
    """A policy engine whose every verdict a test makes."""

    class Servicer(policy_rpc.PolicyServiceServicer):
        async def Check(
            self, request: policy_api.CheckRequest, context: grpc.aio.ServicerContext[object, object]
        ) -> policy_api.CheckResponse:
            verdict = await judging(request)
            decision = pol.Decision(decision_id=IDS.ulid(), verdict=verdict, policy_ids=["scripted"])
            decision.action_digest = digest_message(request.action)
            return policy_api.CheckResponse(decision=decision)

    @asynccontextmanager
    async def opened(_runtime: Runtime) -> AsyncGenerator[Register]:
        servicer = Servicer()  # pyright: ignore[reportAbstractUsage] -- nobody calls the rest of it
        yield lambda server: policy_rpc.add_PolicyServiceServicer_to_server(servicer, server)

    return Service("policy-engine", (policy_api.DESCRIPTOR.services_by_name["PolicyService"],), opened)


def ended(
    status: act.OutcomeStatus.ValueType = act.OUTCOME_STATUS_OK, effect: eff.Effect.ValueType = eff.EFFECT_DONE
) -> act.Outcome:
    return act.Outcome(status=status, effect=effect, message="as the test says")


@dataclass
class ScriptedWorker:
    """One stream of a worker. Frames come in order; those that a test does not wait for are passed over."""

    stub: rpc.WorkerServiceAsyncStub
    journal_id: str
    worker_id: str = "noop-1"
    version: int = 1
    messages: int = 0
    frames: asyncio.Queue[wire.ControlResponse] = field(default_factory=asyncio.Queue[wire.ControlResponse])
    ended_with: asyncio.Future[grpc.StatusCode] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _outbox: asyncio.Queue[wire.ControlRequest | None] = field(
        default_factory=asyncio.Queue["wire.ControlRequest | None"]
    )
    _sent: int = 0

    def say(self, *frames: wire.ControlRequest) -> None:
        """Sends a frame, or several in one message."""
        for frame in frames:
            self._sent += 1
            frame.seq = self._sent
        frames[0].more.extend(frames[1:])
        self._outbox.put_nowait(frames[0])

    def hello(self, held: Iterable[wire.HeldStep] = ()) -> None:
        able = wire.Capabilities(kind="noop", actions=["noop/1"], max_concurrent_steps=4)
        hello = wire.Hello(
            worker_id=self.worker_id,
            incarnation_id=str(uuid4()),
            journal_id=self.journal_id,
            capabilities=able,
            held=held,
            protocol_version=self.version,
        )
        self.say(wire.ControlRequest(hello=hello))

    def credit(self, steps: int = 4) -> None:
        self.say(wire.ControlRequest(credit=wire.Credit(steps=steps)))

    def result(self, key: wire.StepKey, outcome: act.Outcome | None = None) -> None:
        self.say(wire.ControlRequest(step_result=wire.StepResult(key=key, outcome=outcome or ended())))

    def state(self, key: wire.StepKey, state: wire.HeldState.ValueType) -> None:
        self.say(wire.ControlRequest(step_state=wire.StepState(key=key, state=state)))

    def beat(self, *running: wire.StepKey) -> None:
        self.say(wire.ControlRequest(heartbeat=wire.Heartbeat(running=running)))

    async def next(self, *kinds: str) -> wire.ControlResponse:
        """The next frame of these kinds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                frame = await self.frames.get()
                if frame.WhichOneof("frame") in kinds:
                    return frame

    async def assigned(self) -> wire.Assign:
        return (await self.next("assign")).assign

    async def nothing_but(self, *kinds: str) -> None:
        """Waits until the control plane has answered a heartbeat; until then no other kinds of frames may come."""
        self.beat()
        async with asyncio.timeout(PATIENCE):
            while not (frame := await self.frames.get()).HasField("renewed"):
                assert frame.WhichOneof("frame") in kinds, frame

    async def code(self) -> grpc.StatusCode:
        """How the stream ended."""
        async with asyncio.timeout(PATIENCE):
            return await self.ended_with

    async def speak(self) -> None:
        call = self.stub.Control(self._said())
        try:
            async for message in call:
                self.messages += 1
                for frame in (message, *message.more):
                    self.frames.put_nowait(frame)
        except grpc.aio.AioRpcError:
            pass
        finally:
            if call.done():
                self.ended_with.set_result(await call.code())

    async def _said(self) -> AsyncIterator[wire.ControlRequest]:
        while (frame := await self._outbox.get()) is not None:
            yield frame

    def hang_up(self) -> None:
        self._outbox.put_nowait(None)


@asynccontextmanager
async def scripted_worker(
    settings: Settings,
    address: str,
    *,
    journal_id: str = "",
    held: Iterable[wire.HeldStep] = (),
    credit: int = 4,
    greet: bool = True,
    worker_id: str = "noop-1",
    version: int = 1,
    token_of: str = "",
) -> AsyncGenerator[ScriptedWorker]:
    """A worker that has said Hello and read Welcome. Leaving the block breaks its stream."""
    token = file_token(prepare_worker_token(settings, CLOCK, IDS, token_of or worker_id))
    async with dial(address, token=token) as channel, asyncio.TaskGroup() as group:
        worker = ScriptedWorker(_stub(channel), journal_id or str(uuid4()), worker_id, version)
        speaking = group.create_task(worker.speak())
        if greet:
            worker.hello(held)
            await worker.next("welcome")
            if credit:
                worker.credit(credit)
        try:
            yield worker
        finally:
            speaking.cancel()


def _stub(channel: grpc.aio.Channel) -> rpc.WorkerServiceAsyncStub:
    return rpc.WorkerServiceStub(channel)


def held(key: wire.StepKey, state: wire.HeldState.ValueType = wire.HELD_STATE_RUNNING) -> wire.HeldStep:
    return wire.HeldStep(key=key, state=state)
