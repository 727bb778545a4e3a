"""Runs that are owned by one node and use workers that are dialled into another, with real processes on PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
import signal
from asyncio.subprocess import Process
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.auth import prepare_worker_token
from infra.channels import dial, file_token
from infra.settings import LeaseSettings, Settings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import relay_service_pb2_grpc as relay_rpc
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane, noop, worker
from tests.control.orchestrator.scripted import scripted_worker
from tests.control.orchestrator.several import onlooker, other_process, owner_of, settings_of

ONCE = eff.EFFECT_CLASS_ONCE
LEASE = LeaseSettings(ttl=2.0, heartbeat=0.3, grace=1.0)


@pytest.fixture
def address(new_database: Callable[[], str]) -> str:
    return new_database()


class Posts(NoopExecutor):
    """Notes what it does, and stands still in the middle of one step until it may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[bytes] = []
        self.under_way = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> act.Outcome:
        title = assignment.action.noop.payload
        self.done.append(title)
        if title == b"slow":
            self.under_way.set()
            await self.may_go_on.wait()
        return await super().execute(assignment, blobs, progress)


class Heard(logging.Handler):
    """What this process logs, as events to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.events: asyncio.Queue[str] = asyncio.Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self.events.put_nowait(record.msg)

    async def until(self, event: str, times: int = 1) -> None:
        async with asyncio.timeout(20):
            while times:
                times -= await self.events.get() == event


@contextmanager
def hearing(name: str) -> Generator[Heard]:
    handler, logger = Heard(), logging.getLogger(name)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


async def address_of(plane: ControlPlane, node_id: str) -> str:
    """Where a node says that it is reached."""
    async with asyncio.timeout(20):
        while True:
            for node, pulse in (await plane.journal.beats()).items():
                if node.node_id == node_id:
                    return pulse.address
            await asyncio.sleep(0.05)


@dataclass
class Scene:
    """A run in the middle of a step: owned by one process, its worker dialled into another, and a third node."""

    person: ControlPlane
    owner: Process
    holder: Process
    run_id: str
    posts: Posts

    async def ends_well(self) -> None:
        """The run succeeds, every step was done once, and nobody altered the journal."""
        state = await self.person.until_ended(self.run_id, within=40)
        assert (state.phase, state.counts.attempts) == (ev.RUN_PHASE_SUCCEEDED, 3)
        assert self.posts.done == [b"first", b"slow", b"last"]
        assert (await self.person.kinds(self.run_id)).count("step_finished") == 3
        assert (await self.person.journal.verify(self.run_id)).bad_seq is None


@asynccontextmanager
async def scene(address: str, folder: Path) -> AsyncGenerator[Scene]:
    third = settings_of("third", address, folder, lease=LEASE)
    posts = Posts()
    async with onlooker(address, folder) as person, other_process("owner", address, folder, LEASE) as owner:
        run_id = await person.start([noop(title, ONCE) for title in ("first", "slow", "last")])
        await owner_of(person, run_id, "owner")
        async with other_process("holder", address, folder, LEASE) as holder:
            dialled = await address_of(person, "holder")
            with hearing("execution.worker") as heard:
                async with worker(third, dialled, posts), control_plane(third):
                    async with asyncio.timeout(20):
                        await posts.under_way.wait()
                    await knows_of(heard, person, third)
                    yield Scene(person, owner, holder, run_id, posts)


async def knows_of(heard: Heard, person: ControlPlane, third: Settings) -> None:
    """Returns when the worker was told of both other nodes."""
    await address_of(person, third.node_id)
    await heard.until("worker.alternates", times=2)


async def test_a_run_uses_a_worker_that_is_dialled_into_another_node(tmp_path: Path, address: str) -> None:
    here = settings_of("here", address, tmp_path)
    async with onlooker(address, tmp_path) as person, other_process("there", address, tmp_path):
        run_id = await person.start(steps="20")
        await owner_of(person, run_id, "there")
        async with control_plane(here) as holder, worker(here, holder.runtime.address):
            state = await person.until_ended(run_id)
        assert (state.phase, state.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, 20)
        assert state.node_id == "there"
        assert (await person.journal.verify(run_id)).bad_seq is None


@pytest.mark.parametrize("killed", ["owner", "holder", "both"])
async def test_a_run_goes_on_and_nothing_is_done_twice_when_owner_or_holder_or_both_are_killed(
    tmp_path: Path, address: str, killed: str
) -> None:
    async with scene(address, tmp_path) as on:
        for name, process in (("owner", on.owner), ("holder", on.holder)):
            if killed in (name, "both"):
                process.kill()
        on.posts.may_go_on.set()
        await on.ends_well()


async def test_a_holder_that_stands_still_loses_its_workers_and_harms_nothing_when_it_wakes(
    tmp_path: Path, address: str
) -> None:
    async with scene(address, tmp_path) as on:
        on.holder.send_signal(signal.SIGSTOP)
        on.posts.may_go_on.set()
        await on.ends_well()
        on.holder.send_signal(signal.SIGCONT)
        again = await on.person.start([noop("again", ONCE)])
        assert (await on.person.until_ended(again)).phase == ev.RUN_PHASE_SUCCEEDED
        assert on.posts.done[3:] == [b"again"]


async def test_a_holder_that_drains_hands_its_workers_over_with_what_they_are_doing(
    tmp_path: Path, address: str
) -> None:
    async with scene(address, tmp_path) as on:
        on.holder.terminate()
        assert await on.holder.wait() == 0
        on.posts.may_go_on.set()
        await on.ends_well()


async def test_many_runs_of_three_nodes_share_two_workers_while_a_node_leaves_and_comes_back(
    tmp_path: Path, address: str
) -> None:
    one, two, three = (settings_of(name, address, tmp_path, lease=LEASE) for name in ("one", "two", "three"))
    async with onlooker(address, tmp_path) as person, control_plane(one) as first, control_plane(two) as second:
        workers = (worker(one, first.runtime.address), worker(two, second.runtime.address, worker_id="noop-2"))
        async with workers[0], workers[1]:
            runs = [await person.start(steps="10") for _ in range(20)]
            async with control_plane(three):
                runs += [await person.start(steps="10") for _ in range(20)]
                await person.until_ended(runs[0])
            async with control_plane(three):
                ended = [await person.until_ended(run_id, within=50) for run_id in runs]
    assert {state.phase for state in ended} == {ev.RUN_PHASE_SUCCEEDED}
    assert {state.counts.steps_succeeded for state in ended} == {10}
    pairs: set[tuple[str, str]] = set()
    for state in ended:
        used = {attempt.worker_id for record in state.nodes for attempt in record.attempts if attempt.intended_seq}
        assert len(used) == 1, "a session moved while its worker could be reached"
        pairs |= {(state.node_id, worker_id) for worker_id in used}
    assert pairs & {("one", "noop-2"), ("two", "noop-1")}, "no run used a worker of another node"


async def test_a_former_owner_is_not_heard_and_nobody_assigns_without_a_credit(tmp_path: Path, address: str) -> None:
    here = settings_of("here", address, tmp_path)
    async with control_plane(here) as plane, scripted_worker(here, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        present = (await hand.assigned()).key
        former, later = wire.StepKey(), wire.StepKey()
        former.CopyFrom(present)
        later.CopyFrom(present)
        former.fence.epoch, later.fence.epoch = present.fence.epoch - 1, present.fence.epoch + 1
        async with speaking_as_owner(here, plane.runtime.address) as other:
            session = (await other.next("worker_joined")).worker_joined.session_id
            for key in (former, later):
                other.say(to_worker=relay.ToWorker(session_id=session, inspect=wire.Inspect(key=key)))
            assert (await hand.next("inspect")).inspect.key == later
            hand.state(later, wire.HELD_STATE_RUNNING)
            assert (await other.next("from_worker")).from_worker.step_state.key == later
            digest = "b3:" + 64 * "0"
            assign = wire.Assign(key=later, action=act.Action(noop=act.NoopAction()), action_digest=digest)
            assign.action.effect_class = ONCE
            other.say(to_worker=relay.ToWorker(session_id=session, assign=assign))
            assert await other.code() == grpc.StatusCode.FAILED_PRECONDITION
        hand.result(present)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_worker_may_not_speak_as_an_owner(tmp_path: Path, address: str) -> None:
    here = settings_of("here", address, tmp_path)
    token = prepare_worker_token(here, CLOCK, IDS, "noop-1")
    async with control_plane(here) as plane, speaking_as_owner(here, plane.runtime.address, token) as other:
        assert await other.code() == grpc.StatusCode.PERMISSION_DENIED


class SpokenOwner:
    """An owner's stream, spoken by hand."""

    def __init__(self, stub: relay_rpc.RelayServiceAsyncStub) -> None:
        self._requests: asyncio.Queue[relay.RelayRequest] = asyncio.Queue()
        self._call = stub.Relay(self._said())
        self._frames: deque[relay.HolderFrame] = deque()

    def say(self, *, hello: relay.RelayHello | None = None, to_worker: relay.ToWorker | None = None) -> None:
        self._requests.put_nowait(relay.RelayRequest(frames=[relay.OwnerFrame(hello=hello, to_worker=to_worker)]))

    async def next(self, kind: str) -> relay.HolderFrame:
        """The next frame of a kind; others are passed over."""
        async with asyncio.timeout(20):
            while True:
                while not self._frames:
                    response = await self._call.read()
                    assert isinstance(response, relay.RelayResponse)
                    self._frames.extend(response.frames)
                if (frame := self._frames.popleft()).HasField(kind):  # pyright: ignore[reportArgumentType] -- the name of a frame
                    return frame

    async def code(self) -> grpc.StatusCode:
        """How the stream ended."""
        async with asyncio.timeout(20):
            return await self._call.code()

    async def _said(self) -> AsyncIterator[relay.RelayRequest]:
        while True:
            yield await self._requests.get()


@asynccontextmanager
async def speaking_as_owner(settings: Settings, to: str, token: Path | None = None) -> AsyncGenerator[SpokenOwner]:
    async with dial(to, token=file_token(token or settings.internal_token_path)) as channel:
        stub: relay_rpc.RelayServiceAsyncStub = relay_rpc.RelayServiceStub(channel)
        owner = SpokenOwner(stub)
        owner.say(hello=relay.RelayHello(node_id="other", incarnation_id=IDS.uuid()))
        yield owner
