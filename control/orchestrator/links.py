"""The live streams of workers: what each can do, what it holds, and what may be sent to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from skyagent.execution.v1 import worker_service_pb2 as wire


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


@dataclass(slots=True, eq=False)
class WorkerLink:
    """One worker's stream. It lives as long as the stream; what it forgets the worker's journal knows."""

    hello: wire.Hello
    session_id: str
    since: float
    outbox: asyncio.Queue[wire.ControlResponse | None] = field(
        default_factory=asyncio.Queue["wire.ControlResponse | None"]
    )
    known: set[Key] = field(default_factory=set[Key])
    credits: int = 0
    applied_seq: int = 0
    inventory: wire.Inventory = field(default_factory=wire.Inventory)
    _sent: int = 0

    @property
    def worker_id(self) -> str:
        return self.hello.worker_id

    @property
    def journal_id(self) -> str:
        return self.hello.journal_id

    @property
    def kind(self) -> str:
        return self.hello.capabilities.kind

    def send(self, frame: wire.ControlResponse) -> None:
        """Queues a frame; the stream's writer sends it in order."""
        self._sent += 1
        frame.seq, frame.ack = self._sent, self.applied_seq
        self.outbox.put_nowait(frame)

    def assign(self, key: Key, assign: wire.Assign) -> None:
        """Sends an attempt at the price of one credit."""
        self.credits -= 1
        self.known.add(key)
        self.send(wire.ControlResponse(assign=assign))

    def recorded(self, key: wire.StepKey) -> None:
        """Tells the worker that it may let go of an outcome."""
        self.known.discard(Key.of(key))
        self.send(wire.ControlResponse(result_recorded=wire.ResultRecorded(key=key)))

    def close(self) -> None:
        """Ends the stream once everything queued was sent."""
        self.outbox.put_nowait(None)


@dataclass(slots=True)
class WorkerLinks:
    """Every live stream by worker id, and a way to wait until that changes."""

    by_id: dict[str, WorkerLink] = field(default_factory=dict[str, WorkerLink])
    last_seen: dict[str, float] = field(default_factory=dict[str, float])

    def pick(self, kind: str, preferred: str = "") -> WorkerLink | None:
        """A worker of this kind with room: the preferred one when it is there, since a session lives on it.

        While the preferred worker is connected but full, nothing is picked: the session does not move.
        """
        if preferred in self.by_id:
            link = self.by_id[preferred]
            return link if link.credits > 0 and serves(link, kind) else None
        able = [link for link in self.by_id.values() if link.credits > 0 and serves(link, kind)]
        return max(able, key=lambda link: (link.credits, link.worker_id), default=None)

    def connected(self, kind: str) -> bool:
        """Whether any worker of this kind is there, with room or without."""
        return any(serves(link, kind) for link in self.by_id.values())

    def kinds(self) -> Mapping[str, int]:
        """How many workers of each kind are there."""
        found = sorted(link.kind for link in self.by_id.values())
        return {kind: found.count(kind) for kind in found}

    def end_run(self, run_id: str, worker_ids: Iterable[str]) -> None:
        """Lets workers forget a run that has ended."""
        for worker_id in worker_ids:
            link = self.by_id.get(worker_id)
            if link is not None:
                link.send(wire.ControlResponse(run_ended=wire.RunEnded(run_id=run_id)))


def serves(link: WorkerLink, kind: str) -> bool:
    """Whether a worker takes actions of a kind."""
    return kind == link.kind
