"""Heartbeats that name attempts of several owners: answered once each has said what is still open, or cannot be asked.

A worker counts its leases from the oldest heartbeat that is not answered, so answers go out in the order in which the
heartbeats came. An attempt that nobody answers for is neither renewed nor given up.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import count

from control.orchestrator.links import Key, LocalLink
from control.orchestrator.owner import Leases, Renewing
from control.orchestrator.relay.lending import RelayedOwner
from infra.clock import Clock
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import worker_service_pb2 as wire


@dataclass(slots=True, eq=False)
class _Question:
    number: int
    asked_at: float
    keys: list[wire.StepKey]
    held: list[wire.StepKey]
    over: set[Key]
    answer: Renewing
    open: set[RelayedOwner]

    def send(self) -> None:
        settled = self.over | {Key.of(key) for key in self.held}
        self.answer(self.held, [key for key in self.keys if Key.of(key) not in settled])


@dataclass(slots=True)
class Questions:
    """What owners on other nodes have been asked about leases."""

    clock: Clock
    patience: float
    """Seconds that an answer may take."""
    _by_link: dict[LocalLink, deque[_Question]] = field(
        default_factory=lambda: defaultdict[LocalLink, deque[_Question]](deque)
    )
    _numbers: count[int] = field(default_factory=lambda: count(1))

    def ask(
        self,
        link: LocalLink,
        keys: list[wire.StepKey],
        known: Leases,
        owners: Collection[RelayedOwner],
        answer: Renewing,
    ) -> None:
        """Has a heartbeat answered: for some of its attempts this node knows the answer, for others it asks around."""
        over = {Key.of(key) for key in known.over}
        foreign = [key for key in keys if Key.of(key) not in over | {Key.of(held) for held in known.held}]
        asked = set(owners) if foreign else set[RelayedOwner]()
        question = _Question(next(self._numbers), self.clock.monotonic(), keys, list(known.held), over, answer, asked)
        self._by_link[link].append(question)
        for owner in asked:
            owner.send(relay.HolderFrame(leases_asked=relay.LeasesAsked(question=question.number, keys=foreign)))
        self._send(link)

    def answered(self, owner: RelayedOwner, said: relay.LeasesAnswered) -> None:
        """An owner knows of some of the attempts."""
        for link, questions in list(self._by_link.items()):
            for question in questions:
                if question.number == said.question and owner in question.open:
                    question.held.extend(said.held)
                    question.over.update(Key.of(key) for key in said.over)
                    question.open.discard(owner)
                    self._send(link)
                    return

    def drop_owner(self, owner: RelayedOwner) -> None:
        """It answers no more."""
        for link, questions in list(self._by_link.items()):
            for question in questions:
                question.open.discard(owner)
            self._send(link)

    def drop_link(self, link: LocalLink) -> None:
        """Nobody waits for its answers any more."""
        self._by_link.pop(link, None)

    def expire(self) -> None:
        """Answers without those that took too long."""
        late = self.clock.monotonic() - self.patience
        for link, questions in list(self._by_link.items()):
            for question in questions:
                if question.asked_at <= late:
                    question.open.clear()
            self._send(link)

    def _send(self, link: LocalLink) -> None:
        questions = self._by_link[link]
        while questions and not questions[0].open:
            questions.popleft().send()
