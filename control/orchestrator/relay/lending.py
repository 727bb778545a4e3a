"""An owner on another node, as the holder of workers' streams sees it: what it was told, waits for, and has.

The holder alone keeps the books. A credit that is lent is taken from the worker's own and given to one owner; it comes
back when the owner returns it or its stream ends, is spent by an Assign, and is void when the worker's stream ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from control.journal import Node
from control.orchestrator.links import LocalLink, Wanted, WorkerLinks
from infra.errors import Precondition
from infra.outbox import Outbox
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import worker_service_pb2 as wire


@dataclass(slots=True, eq=False)
class RelayedOwner:
    """One stream of one owner. Frames reach the owner in order, and are lost with the stream."""

    node: Node
    links: WorkerLinks
    outbox: Outbox[relay.HolderFrame] = field(default_factory=Outbox["relay.HolderFrame"])
    shown: dict[str, LocalLink] = field(default_factory=dict[str, LocalLink])
    """The workers' streams that it knows, by session."""
    closed: bool = False
    _leaving: set[str] = field(default_factory=set[str])
    _lent: Counter[str] = field(default_factory=Counter[str])
    _waiting: list[_Turn] = field(default_factory=list["_Turn"])

    def send(self, frame: relay.HolderFrame) -> None:
        self.outbox.put(frame)

    def show(self, links: Iterable[LocalLink]) -> None:
        """Tells which workers are here now, as far as that is news."""
        now = {link.session_id: link for link in links}
        for session_id in self.shown.keys() - now.keys():
            self._forget(session_id)
        for session_id, link in now.items():
            if session_id not in self.shown:
                self.shown[session_id] = link
                self.send(relay.HolderFrame(worker_joined=_joined(link)))
            if link.leaving and session_id not in self._leaving:
                self._leaving.add(session_id)
                self.send(relay.HolderFrame(worker_leaving=relay.WorkerLeaving(session_id=session_id)))

    def _forget(self, session_id: str) -> None:
        del self.shown[session_id]
        del self._lent[session_id]
        self._leaving.discard(session_id)
        self.send(relay.HolderFrame(worker_left=relay.WorkerLeft(session_id=session_id)))

    def want(self, wants: Iterable[relay.RelayWant]) -> None:
        """Takes everything that its runs wait for. What it waited for before keeps its place among others."""
        wanted = Counter(Wanted(want.kind, want.preferred, want.priority, near=True) for want in wants)
        for turn in list(self._waiting):
            if wanted[turn.wanted] > 0:
                wanted[turn.wanted] -= 1
            else:
                self._drop(turn)
        for each in wanted.elements():
            turn = _Turn(self, each)
            self._waiting.append(turn)
            self.links.wait(turn, each)
        self.links.room_made()

    def serve(self, turn: _Turn) -> None:
        """Lends what one of its runs waits for, if it is there."""
        link = self.links.pick(turn.wanted)
        if isinstance(link, LocalLink) and link.session_id in self.shown:
            self._drop(turn)
            self._lend(link)

    def lend_next(self, link: LocalLink) -> None:
        """Lends a credit together with a result, so that the run can go on at once; it holds one at most unasked."""
        free = self.links.pick(Wanted(link.kind, link.worker_id, near=True))
        if free is link and not self.lent(link) and not self.closed:
            self._lend(link)

    def lent(self, link: LocalLink) -> int:
        """How many credits of a worker it has."""
        return self._lent[link.session_id]

    def spend(self, link: LocalLink) -> None:
        """Takes a credit for an Assign. Raises Precondition: it has none."""
        if self.lent(link) <= 0:
            told = f"node {self.node.node_id!r} assigns to worker {link.worker_id!r} and was lent no credit for it"
            raise Precondition("NO_CREDIT", told)
        self._lent[link.session_id] -= 1

    def give_back(self, session_id: str, steps: int) -> None:
        """Takes back what it does not use; of a worker that is gone there is nothing to take."""
        link, returned = self.shown.get(session_id), min(steps, self._lent[session_id])
        self._lent[session_id] -= returned
        if link is not None and returned:
            link.credits += returned
            self.links.room_made()

    def close(self) -> None:
        """Ends its stream once everything queued was sent; what it was lent is everybody's again."""
        if not self.closed:
            self.closed = True
            self.outbox.close()
            for turn in list(self._waiting):
                self._drop(turn)
            for session_id, steps in list(self._lent.items()):
                self.give_back(session_id, steps)

    def _lend(self, link: LocalLink) -> None:
        link.credits -= 1
        self._lent[link.session_id] += 1
        self.send(relay.HolderFrame(credits_lent=relay.CreditsLent(session_id=link.session_id, steps=1)))

    def _drop(self, turn: _Turn) -> None:
        self._waiting.remove(turn)
        self.links.wait_no_more(turn)


@dataclass(slots=True, eq=False)
class _Turn:
    """One run of another node that waits for room here, among this node's own."""

    owner: RelayedOwner
    wanted: Wanted

    def set(self) -> None:
        self.owner.serve(self)


def _joined(link: LocalLink) -> relay.WorkerJoined:
    """What a worker said of itself; of what it holds owners ask it, run by run."""
    hello = wire.Hello()
    hello.CopyFrom(link.hello)
    del hello.held[:]
    return relay.WorkerJoined(session_id=link.session_id, hello=hello, generation=link.generation)
