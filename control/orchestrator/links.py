"""The live streams of workers: what each can do, what it holds, and what may be sent to it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from control.core.fairness import Claimant, Turns
from infra.outbox import MOST_FRAMES, Outbox
from skyagent.execution.v1 import worker_service_pb2 as wire

MANY_FRAMES = 2
"""The protocol version from which on a message may carry several frames."""


class Key(NamedTuple):
    """An attempt, without the fence."""

    run_id: str
    step_id: str
    attempt: int

    @classmethod
    def of(cls, key: wire.StepKey) -> Key:
        """The same from the wire."""
        return cls(key.run_id, key.step_id, key.attempt)

    def on_wire(self, fence: wire.Fence) -> wire.StepKey:
        """The same for the wire, in the right of an owner."""
        return wire.StepKey(run_id=self.run_id, step_id=self.step_id, attempt=self.attempt, fence=fence)


def fence_of(key: wire.StepKey) -> tuple[int, int]:
    """The right under which an attempt is spoken of; a higher one is that of a later owner."""
    return key.fence.log_generation, key.fence.epoch


class Wanted(NamedTuple):
    """What kind of worker a run wants, the one that it prefers, and how much it matters among runs."""

    kind: str
    preferred: str = ""
    priority: int = 0
    near: bool = False
    """Only of the workers that are dialled into this node: for another node's run, so that nothing is lent on."""
    tenant: str = ""
    """Whose turn is taken; of another node's run it is not known, and those are as one tenant."""


class Standing(Enum):
    """How an attempt stands with a worker, as far as its present stream tells. None at all: Hello did not name it."""

    HELD = "named by Hello"
    ASKED = "Inspect was sent and is not answered"
    RUNNING = "the worker said so"
    ASSIGNED = "Assign was sent"
    ABSENT = "the worker's journal does not know it"
    RELEASED = "the worker has let go of its outcome"
    OVERTAKEN = "the worker obeys a later owner"


class Waiter(Protocol):
    """Who waits for room; asyncio.Event is one."""

    def set(self) -> None:
        """It is its turn to look for a worker."""
        ...


@dataclass(slots=True, eq=False)
class WorkerLink(ABC):
    """One worker's stream, as owners of runs see it: dialled into this node, or relayed by the one that it dialled.

    It lives as long as the stream; what it forgets the worker's journal knows.
    """

    hello: wire.Hello
    session_id: str
    since: float
    generation: int = 0
    """Of the streams of a worker the one with the highest is the present one; 0 where there is but one node."""
    standing: dict[Key, Standing] = field(default_factory=dict[Key, Standing])
    credits: int = 0
    """How much more this node may assign."""
    leaving: bool = False
    refusals: Counter[Key] = field(default_factory=Counter["Key"])
    """How often results were refused on this stream because what they name is not stored."""
    unrecorded: set[Key] = field(default_factory=set["Key"])
    """Outcomes that this node passed on, or had no owner for, and that are not known to be recorded."""

    _let_go: dict[str, list[Key]] | None = None

    @property
    @abstractmethod
    def near(self) -> bool:
        """Whether the worker is dialled into this node."""

    @abstractmethod
    def send(self, frame: wire.ControlResponse) -> None:
        """Queues a frame; frames are sent in order, and lost with the stream."""

    @abstractmethod
    def close(self) -> None:
        """Says nothing more: another stream of this worker took over."""

    @abstractmethod
    def told(self, since: float) -> bool:
        """Whether Hello said what the worker holds of a run that is owned here since then."""

    @property
    def worker_id(self) -> str:
        return self.hello.worker_id

    @property
    def journal_id(self) -> str:
        return self.hello.journal_id

    @property
    def kind(self) -> str:
        return self.hello.capabilities.kind

    def let_go_of(self, run_id: str) -> Sequence[Key]:
        """The last attempts of a run that its journal has let go of, as Hello named them."""
        if self._let_go is None:
            self._let_go = {}
            for key in self.hello.released:
                self._let_go.setdefault(key.run_id, []).append(Key.of(key))
        return self._let_go.get(run_id, ())

    @contextmanager
    def one_credit(self) -> Generator[None]:
        """Takes a credit before anything is awaited, so that no two runs count on the same one; back on failure."""
        self.credits -= 1
        try:
            yield
        except BaseException:
            self.credits += 1
            raise

    def assign(self, key: Key, assign: wire.Assign) -> None:
        """Sends an attempt. Whoever sends one has taken a credit for it before."""
        self.standing[key] = Standing.ASSIGNED
        if self.hello.capabilities.exact_actions:
            assign.action_bytes = assign.action.SerializeToString(deterministic=True)
        self.send(wire.ControlResponse(assign=assign))

    def inspect(self, key: Key, fence: wire.Fence) -> None:
        """Asks what the worker knows of an attempt; from then on it obeys no earlier owner."""
        self.standing[key] = Standing.ASKED
        self.send(wire.ControlResponse(inspect=wire.Inspect(key=key.on_wire(fence))))

    def answered(self, key: Key, state: wire.HeldState.ValueType) -> None:
        """Takes what the worker's journal says. Only an owner that was overtaken is refused what it assigned so."""
        if state == wire.HELD_STATE_RUNNING:
            self.standing[key] = Standing.RUNNING
        elif state == wire.HELD_STATE_RELEASED:
            self.standing[key] = Standing.RELEASED
        elif state == wire.HELD_STATE_NEVER_BEGUN:
            refused = self.standing.get(key) is Standing.ASSIGNED
            self.standing[key] = Standing.OVERTAKEN if refused else Standing.ABSENT

    def recorded(self, key: wire.StepKey) -> None:
        """Tells the worker that it may let go of an outcome."""
        self.standing.pop(Key.of(key), None)
        self.refusals.pop(Key.of(key), None)
        self.unrecorded.discard(Key.of(key))
        self.send(wire.ControlResponse(result_recorded=wire.ResultRecorded(key=key)))

    def refused(self, key: wire.StepKey, missing: Iterable[str]) -> None:
        """Asks the worker to store what its outcome names, and to report again."""
        self.refusals[Key.of(key)] += 1
        self.send(wire.ControlResponse(result_refused=wire.ResultRefused(key=key, missing=missing)))

    def ask_again(self, key: wire.StepKey) -> None:
        """Asks the worker to report an outcome that it holds: who was told of it before is not the owner any more."""
        self.send(wire.ControlResponse(result_refused=wire.ResultRefused(key=key)))


@dataclass(slots=True, eq=False)
class LocalLink(WorkerLink):
    """The stream of a worker that is dialled into this node."""

    outbox: Outbox[wire.ControlResponse] = field(default_factory=Outbox["wire.ControlResponse"])
    applied_seq: int = 0
    inventory: wire.Inventory = field(default_factory=wire.Inventory)
    alternates: list[str] = field(default_factory=list[str])
    """Where it was told that it may dial instead."""
    _sent: int = 0

    @property
    def near(self) -> bool:
        return True

    @property
    def most_frames(self) -> int:
        """How many frames one message to it may carry."""
        return MOST_FRAMES if self.hello.protocol_version >= MANY_FRAMES else 1

    def send(self, frame: wire.ControlResponse) -> None:
        self._sent += 1
        frame.seq, frame.ack = self._sent, self.applied_seq
        self.outbox.put(frame)

    def close(self) -> None:
        """Ends the stream once everything queued was sent."""
        self.outbox.close()

    def told(self, since: float) -> bool:
        return not self.generation or self.since >= since  # of a single node nobody else was told anything


@dataclass(slots=True)
class WorkerLinks:
    """Every live stream by worker id, and a way to wait until that changes."""

    by_id: dict[str, WorkerLink] = field(default_factory=dict[str, WorkerLink])
    last_seen: dict[str, float] = field(default_factory=dict[str, float])
    watchers: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    """Called when others may have to be asked for room, or not any more."""
    turns: Turns = field(default_factory=Turns)
    """Whose turn it is among tenants; a turn is an attempt that is assigned."""
    _waiting: dict[Waiter, Wanted] = field(default_factory=dict["Waiter", "Wanted"])

    def join(self, link: WorkerLink) -> bool:
        """Takes a stream, unless a later one of the same worker is known; ends the one that it overtakes."""
        before = self.by_id.get(link.worker_id)
        if before is not None and before.generation > link.generation:
            return False
        self.by_id[link.worker_id] = link
        if before is not None:
            before.close()
        return True

    def leave(self, link: WorkerLink, now: float) -> bool:
        """Forgets a stream that has ended; whether it was the present one of its worker."""
        if self.by_id.get(link.worker_id) is not link:
            return False
        self.last_seen[link.worker_id] = now
        del self.by_id[link.worker_id]
        return True

    def near(self) -> list[LocalLink]:
        """The workers that are dialled into this node."""
        return [link for link in self.by_id.values() if isinstance(link, LocalLink)]

    def forget(self, run_id: str, since: float) -> None:
        """What was known of a run that is owned here since then only counts where it was said to this owner."""
        for link in self.by_id.values():
            if not link.told(since):
                for key in [key for key in link.standing if key.run_id == run_id]:
                    del link.standing[key]

    def pick(self, wanted: Wanted) -> WorkerLink | None:
        """A worker of this kind with room: the preferred one when it is there, since a session lives on it.

        While the preferred worker is connected but full, nothing is picked: the session does not move. Nor is anything
        picked that is waited for by a run that goes before.
        """
        own = _claimant(wanted)
        before = [other for other in self._waiting.values() if self.turns.yields(own, _claimant(other))]
        with self._promised(before):
            return self._free(wanted)

    def _in_order(self) -> list[tuple[Waiter, Wanted]]:
        """Who waits, whose turn is first first."""
        waiting = list(self._waiting.items())
        order = self.turns.order([_claimant(wanted) for _, wanted in waiting])
        return [waiting[at] for at in order]

    def _free(self, wanted: Wanted) -> WorkerLink | None:
        """One that is dialled into this node before one that is lent."""
        link = self.by_id.get(wanted.preferred)
        if link is not None and serves(link, wanted.kind) and not link.leaving:
            return link if link.credits > 0 and (link.near or not wanted.near) else None
        able = [link for link in self.by_id.values() if _has_room(link, wanted.kind) and (link.near or not wanted.near)]
        return max(able, key=lambda link: (link.near, link.credits, link.worker_id), default=None)

    @contextmanager
    def waiting_for_room(self, woken: asyncio.Event, wanted: Wanted) -> Generator[None]:
        """While this lasts, `woken` is set when it is this one's turn to look for a worker again."""
        self.wait(woken, wanted)
        try:
            yield
        finally:
            self.wait_no_more(woken)

    def wait(self, waiter: Waiter, wanted: Wanted) -> None:
        """`waiter` is set when it is its turn, until `wait_no_more`."""
        self._waiting[waiter] = wanted
        self.changed()

    def wait_no_more(self, waiter: Waiter) -> None:
        self._waiting.pop(waiter, None)
        self.changed()

    def changed(self) -> None:
        """Tells those who watch what is waited for."""
        for told in self.watchers:
            told()

    def unserved(self) -> list[Wanted]:
        """What this node's own runs wait for and nothing is there for, what matters most first."""
        waiting = [wanted for _, wanted in self._in_order()]
        with self._promised(waiting) as served:
            return [wanted for wanted, link in zip(waiting, served, strict=True) if link is None and not wanted.near]

    def room_made(self) -> None:
        """Wakes as many as there is room for: all of them would ask policy for nothing.

        Tenants take turns; within one the higher priority goes first, and of equal ones who has waited longest.
        """
        waiting = self._in_order()
        with self._promised([wanted for _, wanted in waiting]) as served:
            turn = [waiter for (waiter, _), link in zip(waiting, served, strict=True) if link is not None]
        for waiter in turn:
            waiter.set()

    @contextmanager
    def _promised(self, those: Iterable[Wanted]) -> Generator[list[WorkerLink | None]]:
        """While this lasts, each of those that can be served has a credit; the worker of each, if there is one."""
        served: list[WorkerLink | None] = []
        for wanted in those:
            link = self._free(wanted)
            if link is not None:
                link.credits -= 1
            served.append(link)
        try:
            yield served
        finally:
            for link in served:
                if link is not None:
                    link.credits += 1

    def connected(self, kind: str) -> bool:
        """Whether any worker of this kind is there, with room or without."""
        return any(serves(link, kind) for link in self.by_id.values())

    def kinds(self) -> Mapping[str, int]:
        """How many workers of each kind are there."""
        found = sorted(link.kind for link in self.by_id.values())
        return {kind: found.count(kind) for kind in found}

    def wanted(self) -> Mapping[str, int]:
        """How many of this node's runs wait for a worker of each kind."""
        return Counter(wanted.kind for wanted in self._waiting.values() if not wanted.near)

    def end_run(self, run_id: str, worker_ids: Iterable[str]) -> None:
        """Lets workers forget a run that has ended."""
        for worker_id in worker_ids:
            link = self.by_id.get(worker_id)
            if link is not None:
                for key in [key for key in link.standing if key.run_id == run_id]:
                    del link.standing[key]
                link.send(wire.ControlResponse(run_ended=wire.RunEnded(run_id=run_id)))


def _claimant(wanted: Wanted) -> Claimant:
    return Claimant(wanted.tenant, wanted.priority)


def serves(link: WorkerLink, kind: str) -> bool:
    """Whether a worker takes actions of a kind."""
    return kind == link.kind


def _has_room(link: WorkerLink, kind: str) -> bool:
    return link.credits > 0 and not link.leaving and serves(link, kind)
