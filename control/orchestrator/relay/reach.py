"""As an owner: a stream to every other node that lives, and the workers that can be reached by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import cast

import grpc
from google.protobuf.message import Message

from control.journal import Node
from control.orchestrator.links import Wanted, WorkerLink, WorkerLinks, serves
from control.orchestrator.owner import Owner
from control.orchestrator.relay.neighbours import Neighbours
from infra.backoff import Backoff
from infra.channels import dial
from infra.clock import Clock
from infra.errors import DeadlineExceeded, SkyError, Unavailable
from infra.ids import Ids
from infra.log import event_logger
from infra.outbox import MOST_FRAMES, Outbox
from infra.status import from_rpc_error
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import relay_service_pb2_grpc as rpc
from skyagent.execution.v1 import worker_service_pb2 as wire

IDLE_SECONDS = 1.0
"""A credit that was lent and is not used for so long, or twice as long at most, is returned."""
HANDSHAKE_DEADLINE = 10.0
MOST_WANTS = 4096

Call = grpc.aio.StreamStreamCall[relay.RelayRequest, relay.RelayResponse]
Send = Callable[[relay.OwnerFrame], None]

log = event_logger(__name__)


@dataclass(slots=True, eq=False)
class RelayedLink(WorkerLink):
    """The stream of a worker that is dialled into another node, its holder."""

    say: Send = field(kw_only=True)
    used: bool = True
    """Whether a credit of it came or went since somebody looked."""
    gone: bool = False

    @property
    def near(self) -> bool:
        return False

    def send(self, frame: wire.ControlResponse) -> None:
        if self.gone:
            return
        kind = frame.WhichOneof("frame") or ""
        told = relay.ToWorker(session_id=self.session_id)
        cast("Message", getattr(told, kind)).CopyFrom(cast("Message", getattr(frame, kind)))
        self.used |= kind == "assign"
        self.say(relay.OwnerFrame(to_worker=told))

    def close(self) -> None:
        self.gone = True

    def told(self, since: float) -> bool:
        return False  # what its Hello said was said to its holder, perhaps long ago

    def lend(self, steps: int) -> None:
        """Takes credits that its holder lends."""
        self.used = True
        self.credits += steps

    def idle(self) -> int:
        """Credits that were not used since this was asked last: they are given up."""
        if self.used or self.gone:
            self.used = False
            return 0
        idle, self.credits = self.credits, 0
        return idle


@dataclass(slots=True)
class Relay:
    """One stream to one holder."""

    node: Node
    links: WorkerLinks
    owner: Owner
    clock: Clock
    by_session: dict[str, RelayedLink] = field(default_factory=dict[str, RelayedLink])
    _outbox: Outbox[relay.OwnerFrame] = field(default_factory=Outbox["relay.OwnerFrame"])
    _wanting: asyncio.Event = field(default_factory=asyncio.Event)
    _welcomed: asyncio.Event = field(default_factory=asyncio.Event)
    _expired: bool = False
    _repeat: bool = False
    """A want was served, so that saying it again asks for another."""

    async def converse(self, stub: rpc.RelayServiceAsyncStub) -> SkyError | None:
        """Until the stream ends; what ended it."""
        call = stub.Relay(self._say())
        me = self.owner.node
        self._put(relay.OwnerFrame(hello=relay.RelayHello(node_id=me.node_id, incarnation_id=me.incarnation)))
        self.links.watchers.append(self._wanting.set)
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(each) for each in (self._expire(call), self._want(), self._return_idle())]
                failure = await self._read(call)
                for task in beside:
                    task.cancel()
        finally:
            call.cancel()
            self.links.watchers.remove(self._wanting.set)
            self._lose_all()
        return failure

    @property
    def welcomed(self) -> bool:
        """Whether the other side took it as an owner."""
        return self._welcomed.is_set()

    def _put(self, frame: relay.OwnerFrame) -> None:
        self._outbox.put(frame)

    async def _say(self) -> AsyncIterator[relay.RelayRequest]:
        while frames := await self._outbox.take(MOST_FRAMES):
            yield relay.RelayRequest(frames=frames)

    async def _expire(self, call: Call) -> None:
        await self.clock.sleep(HANDSHAKE_DEADLINE)
        if not self.welcomed:
            self._expired = True
            call.cancel()

    async def _read(self, call: Call) -> SkyError | None:
        # No timeout around a read: each leaks in grpc.aio (grpc/grpc#43360).
        try:
            async for response in call:
                for frame in response.frames:
                    await self._hear(frame)
        except grpc.aio.AioRpcError as error:
            return from_rpc_error(error)
        except SkyError as error:  # what could not be taken is asked for again by the next stream
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if self._expired:
                return DeadlineExceeded("NO_WELCOME", f"no welcome within {HANDSHAKE_DEADLINE:g} s of dialling")
            return Unavailable("STREAM_CLOSED", "the stream was closed on this side")
        return None

    async def _hear(self, frame: relay.HolderFrame) -> None:
        match frame.WhichOneof("frame"):
            case "welcome":
                self._welcomed.set()
                log.info("relay.connected", node=self.node.node_id)
            case "worker_joined":
                self._join(frame.worker_joined)
            case "worker_leaving":
                self._leaving(frame.worker_leaving.session_id)
            case "worker_left":
                self._lose(frame.worker_left.session_id)
            case "credits_lent":
                self._lent(frame.credits_lent)
            case "from_worker":
                await self._from_worker(frame.from_worker)
            case "leases_asked":
                self._leases(frame.leases_asked)
            case _:
                pass  # of a later version

    def _join(self, joined: relay.WorkerJoined) -> None:
        link = RelayedLink(joined.hello, joined.session_id, self.clock.monotonic(), joined.generation, say=self._put)
        if self.links.join(link):
            self.by_session[link.session_id] = link
            log.info("worker.reached", worker_id=link.worker_id, node=self.node.node_id)
            self._wanting.set()
            self.owner.worker_changed()

    def _leaving(self, session_id: str) -> None:
        link = self.by_session.get(session_id)
        if link is not None:
            link.leaving = True
            self.owner.worker_changed()

    def _lose(self, session_id: str) -> None:
        link = self.by_session.pop(session_id, None)
        if link is not None:
            link.close()
            self.links.leave(link, self.clock.monotonic())
            self.owner.worker_changed()

    def _lose_all(self) -> None:
        for session_id in list(self.by_session):
            self._lose(session_id)

    def _lent(self, lent: relay.CreditsLent) -> None:
        link = self.by_session.get(lent.session_id)
        if link is None or link.gone:
            given_back = relay.CreditsReturned(session_id=lent.session_id, steps=lent.steps)
            self._put(relay.OwnerFrame(credits_returned=given_back))
        else:
            link.lend(lent.steps)
            self.links.room_made()
        self._repeat = True
        self._wanting.set()

    async def _from_worker(self, said: relay.FromWorker) -> None:
        link = self.by_session.get(said.session_id)
        if link is None:
            return
        if said.HasField("step_result"):
            await self.owner.result(link, said.step_result)
        else:
            await self.owner.state(link, said.step_state)

    def _leases(self, asked: relay.LeasesAsked) -> None:
        known = self.owner.leases(list(asked.keys))
        answer = relay.LeasesAnswered(question=asked.question, held=known.held, over=known.over)
        self._put(relay.OwnerFrame(leases_answered=answer))

    async def _want(self) -> None:
        """Tells the holder what runs wait for here that it could serve, as far as that is news."""
        told: list[relay.RelayWant] = []
        while True:
            await self._wanting.wait()
            self._wanting.clear()
            wants = [want for wanted in self.links.unserved() if (want := self._servable(wanted))][:MOST_WANTS]
            if wants != told or self._repeat:
                self._repeat = False
                told = wants
                self._put(relay.OwnerFrame(wants=relay.RelayWants(wants=wants)))

    def _servable(self, wanted: Wanted) -> relay.RelayWant | None:
        """As its holder would be asked. A session does not move while its worker can be reached, by whatever way."""
        preferred = self.links.by_id.get(wanted.preferred)
        if preferred is not None and serves(preferred, wanted.kind) and not preferred.leaving:
            return self._asked(wanted, wanted.preferred) if preferred.session_id in self.by_session else None
        able = any(serves(link, wanted.kind) and not link.leaving for link in self.by_session.values())
        return self._asked(wanted, "") if able else None

    def _asked(self, wanted: Wanted, preferred: str) -> relay.RelayWant:
        return relay.RelayWant(kind=wanted.kind, preferred=preferred, priority=wanted.priority)

    async def _return_idle(self) -> None:
        while True:
            await self.clock.sleep(IDLE_SECONDS)
            for link in self.by_session.values():
                if idle := link.idle():
                    returned = relay.CreditsReturned(session_id=link.session_id, steps=idle)
                    self._put(relay.OwnerFrame(credits_returned=returned))
            self._wanting.set()


@dataclass(slots=True)
class Relays:
    """A relay to every other node that lives, as long as it lives."""

    links: WorkerLinks
    owner: Owner
    neighbours: Neighbours
    clock: Clock
    ids: Ids
    token: Callable[[], str]
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Until cancelled."""
        self.neighbours.watchers.append(self._changed.set)
        reached: dict[Node, tuple[str, asyncio.Task[None]]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                wanted = self.neighbours.by_node
                for node, (address, task) in list(reached.items()):
                    if wanted.get(node) != address:
                        task.cancel()
                        del reached[node]
                for node, address in wanted.items():
                    if node not in reached:
                        reached[node] = address, group.create_task(self._reach(node, address))
                await self._changed.wait()
                self._changed.clear()

    async def _reach(self, node: Node, address: str) -> None:
        backoff = Backoff(self.clock, self.ids)
        while True:
            relayed = Relay(node, self.links, self.owner, self.clock)
            try:
                async with dial(address, token=self.token) as channel:
                    failure = await relayed.converse(rpc.RelayServiceStub(channel))
            finally:
                if relayed.welcomed:
                    log.info("relay.disconnected", node=node.node_id)
            if relayed.welcomed:
                backoff.forget()
            else:
                log.warning("relay.not_connected", node=node.node_id, address=address, error=failure)
            await backoff.wait()
