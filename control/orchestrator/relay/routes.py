"""Between the workers that are dialled into this node and the owners of runs, here and on other nodes.

It decides nothing about a step. It knows who spoke last for a run, and by a higher fence than whom; what nobody has
spoken for yet goes to the run's owner by the journal. Nothing is kept for an owner that is away: the worker keeps its
outcomes, and every owner asks for those of its open attempts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from control.journal import Journal, Node, RunNotFound
from control.orchestrator.links import Key, LocalLink, WorkerLinks, fence_of
from control.orchestrator.owner import Owner, Renewing
from control.orchestrator.relay.leases import Questions
from control.orchestrator.relay.lending import RelayedOwner
from control.orchestrator.relay.neighbours import Neighbours
from infra.clock import Clock
from infra.errors import Exhausted, Unavailable
from infra.log import event_logger
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import worker_service_pb2 as wire

HAND_OVER = 0.25
"""Seconds that a worker has to leave a node that drains; its stream ends soon after by itself."""

log = event_logger(__name__)


class _Spoke(NamedTuple):
    fence: tuple[int, int]
    owner: RelayedOwner


@dataclass(slots=True)
class Routes:
    """What the workers' streams talk to where several nodes share a database. Implements stream.Runs."""

    owner: Owner
    journal: Journal
    links: WorkerLinks
    neighbours: Neighbours
    clock: Clock
    questions: Questions
    look_seconds: float
    owners: dict[str, RelayedOwner] = field(default_factory=dict[str, RelayedOwner])
    """By node id."""
    _spoke: dict[str, _Spoke] = field(default_factory=dict[str, _Spoke])
    _lived: set[str] = field(default_factory=set[str])
    _ended: list[LocalLink] = field(default_factory=list[LocalLink])

    def __post_init__(self) -> None:
        self.neighbours.watchers.append(self._neighbours_changed)

    async def run(self) -> None:
        """Until cancelled: sees to what nobody tells. Then its workers are handed to other nodes."""
        try:
            while True:
                await self.clock.sleep(self.look_seconds)
                self.questions.expire()
                try:
                    await self._look_at_streams()
                except (Exhausted, Unavailable) as away:
                    log.warning("journal.away", error=away)
        finally:
            self._hand_over()

    async def _look_at_streams(self) -> None:
        while self._ended:
            link = self._ended[0]
            await self.journal.end_stream(link.worker_id, link.generation)
            self._ended.remove(link)
        held = [link.worker_id for link in self.links.near()]
        if not held:
            return
        holders = await self.journal.streams(held)
        for link in self.links.near():
            holder = holders.get(link.worker_id)
            if holder is not None and holder.generation > link.generation:
                log.info("worker.overtaken", worker_id=link.worker_id, node=holder.node_id)
                self.links.leave(link, self.clock.monotonic())
                link.close()
                self.worker_changed()

    def _hand_over(self) -> None:
        drain = wire.Drain(alternates=self.neighbours.addresses, reason="this node is being stopped")
        drain.deadline.FromMilliseconds(self.clock.now_ms() + int(HAND_OVER * 1000))
        for link in self.links.near():
            if drain.alternates:
                link.send(wire.ControlResponse(drain=drain))

    def _neighbours_changed(self) -> None:
        living = {node.node_id for node in self.neighbours.by_node}
        for node_id, owner in list(self.owners.items()):
            if node_id in self._lived and node_id not in living:
                owner.close()
        self._lived = living
        self._tell_alternates()

    def _tell_alternates(self) -> None:
        """Tells workers while all is well where to go when it is not."""
        addresses = self.neighbours.addresses
        for link in self.links.near():
            if link.alternates != addresses:
                link.alternates = addresses
                link.send(wire.ControlResponse(alternates=wire.Alternates(addresses=addresses)))

    # What the streams of workers say.

    async def take(self, hello: wire.Hello) -> int:
        """Makes this node the holder of a worker's stream."""
        return await self.journal.take_stream(hello.worker_id, hello.incarnation_id, self.owner.node)

    def worker_changed(self) -> None:
        """Tells everybody who has a use for workers."""
        self.owner.worker_changed()
        self._tell_alternates()
        for owner in self.owners.values():
            owner.show(self.links.near())

    def left(self, link: LocalLink) -> None:
        """A worker's stream has ended."""
        self._ended.append(link)
        self.questions.drop_link(link)

    async def ended(self, run_ids: set[str]) -> list[str]:
        """Those of the runs that are over."""
        return await self.owner.ended(run_ids)

    async def result(self, link: LocalLink, result: wire.StepResult) -> None:
        """Passes a result to the owner of its run."""
        link.unrecorded.add(Key.of(result.key))
        owner = await self._owner_of(result.key.run_id)
        if owner is None:
            await self.owner.result(link, result)
        else:
            said = relay.FromWorker(session_id=link.session_id, step_result=result)
            owner.send(relay.HolderFrame(from_worker=said))
            owner.lend_next(link)

    async def state(self, link: LocalLink, state: wire.StepState) -> None:
        """Passes what a worker's journal knows to who asked."""
        owner = self._spoke_last(state.key.run_id)
        if owner is None:
            await self.owner.state(link, state)
        else:
            said = relay.FromWorker(session_id=link.session_id, step_state=state)
            owner.send(relay.HolderFrame(from_worker=said))

    def renew(self, link: LocalLink, keys: list[wire.StepKey], answer: Renewing) -> None:
        """Has a heartbeat answered by the owners of what it names."""
        self.questions.ask(link, keys, self.owner.leases(keys), list(self.owners.values()), answer)

    def _spoke_last(self, run_id: str) -> RelayedOwner | None:
        """The owner on another node that speaks for a run, unless one here does by a higher right."""
        spoke = self._spoke.get(run_id)
        return spoke.owner if spoke is not None and spoke.fence > self._own_fence(run_id) else None

    def _own_fence(self, run_id: str) -> tuple[int, int]:
        driver = self.owner.drivers.get(run_id)
        return (driver.ledger.head.log_generation, driver.ledger.head.epoch) if driver is not None else (0, 0)

    async def _owner_of(self, run_id: str) -> RelayedOwner | None:
        owner = self._spoke_last(run_id)
        if owner is not None or run_id in self.owner.drivers:
            return owner
        try:
            head = await self.journal.head(run_id)
        except RunNotFound:
            return None
        return None if head.terminal else self.owners.get(head.owner_node or "")

    # What owners on other nodes say.

    def admit(self, node: Node) -> RelayedOwner:
        """A new stream of an owner; a former one of the same node, and what it may still say, ends first."""
        before = self.owners.get(node.node_id)
        if before is not None:
            self.dismiss(before)
        owner = self.owners[node.node_id] = RelayedOwner(node, self.links)
        me = self.owner.node
        owner.send(relay.HolderFrame(welcome=relay.RelayWelcome(node_id=me.node_id, incarnation_id=me.incarnation)))
        owner.show(self.links.near())
        for link in self.links.near():
            for key in link.unrecorded:
                if key.run_id not in self.owner.drivers:
                    link.ask_again(key.on_wire(wire.Fence()))
        log.info("relay.accepted", node=node.node_id, workers=len(owner.shown))
        return owner

    def dismiss(self, owner: RelayedOwner) -> None:
        """Its stream has ended."""
        owner.close()
        self.questions.drop_owner(owner)
        if self.owners.get(owner.node.node_id) is owner:
            del self.owners[owner.node.node_id]
            log.info("relay.dismissed", node=owner.node.node_id)
        self._spoke = {run_id: spoke for run_id, spoke in self._spoke.items() if spoke.owner is not owner}

    def hear(self, owner: RelayedOwner, frame: relay.OwnerFrame) -> None:
        """Applies what an owner says. Raises Precondition: it assigns without a credit."""
        match frame.WhichOneof("frame"):
            case "to_worker":
                self._to_worker(owner, frame.to_worker)
            case "wants":
                owner.want(frame.wants.wants)
            case "credits_returned":
                owner.give_back(frame.credits_returned.session_id, frame.credits_returned.steps)
            case "leases_answered":
                self.questions.answered(owner, frame.leases_answered)
            case _:
                pass

    def _to_worker(self, owner: RelayedOwner, told: relay.ToWorker) -> None:
        link = owner.shown.get(told.session_id)
        if link is None:
            return  # it is gone, as its owner is told
        match told.WhichOneof("frame"):
            case "assign":
                owner.spend(link)
                if self._speaks(owner, told.assign.key):
                    link.send(wire.ControlResponse(assign=told.assign))
                else:
                    link.credits += 1
                    self.links.room_made()
            case "cancel" if self._speaks(owner, told.cancel.key):
                link.send(wire.ControlResponse(cancel=told.cancel))
            case "inspect" if self._speaks(owner, told.inspect.key):
                link.send(wire.ControlResponse(inspect=told.inspect))
            case "result_recorded":
                link.recorded(told.result_recorded.key)
            case "result_refused":
                link.send(wire.ControlResponse(result_refused=told.result_refused))
            case "run_ended":
                self._run_ended(link, told.run_ended)
            case _:
                pass

    def _speaks(self, owner: RelayedOwner, key: wire.StepKey) -> bool:
        """Whether it has the right to, as far as is known here; the worker has the last word."""
        fence, spoke = fence_of(key), self._spoke.get(key.run_id)
        if fence < self._own_fence(key.run_id) or (spoke is not None and fence < spoke.fence):
            log.info("relay.overtaken", node=owner.node.node_id, run_id=key.run_id)
            return False
        self._spoke[key.run_id] = _Spoke(fence, owner)
        return True

    def _run_ended(self, link: LocalLink, told: wire.RunEnded) -> None:
        self._spoke.pop(told.run_id, None)
        link.unrecorded -= {key for key in link.unrecorded if key.run_id == told.run_id}
        link.send(wire.ControlResponse(run_ended=told))
