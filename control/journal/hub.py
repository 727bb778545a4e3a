"""Committed events and wakes on their way to those who wait for them in this process. Everything here is a hint."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from control.journal.event import StoredEvent
from infra.db import EVERYTHING

BUFFERED_EVENTS = 256
_EVENTS, _WAKES = "e", "w"


def event_topic(run_id: str) -> str:
    """What is announced to other processes when a run has new events."""
    return f"{_EVENTS}{run_id}"


def wake_topic(run_id: str) -> str:
    """What is announced when the run's owner, or whoever could own it, should look."""
    return f"{_WAKES}{run_id}"


class Subscription:
    """New events of one run for one reader; a reader that is too slow loses the oldest and must read the database."""

    def __init__(self) -> None:
        self._events: deque[StoredEvent] = deque(maxlen=BUFFERED_EVENTS)
        self._ready = asyncio.Event()

    def put(self, event: StoredEvent) -> None:
        self._events.append(event)
        self._ready.set()

    def look(self) -> None:
        """There may be events that nobody hands over."""
        self._ready.set()

    async def take(self) -> tuple[StoredEvent, ...]:
        """Wait for at least one event and take all there are; none means that the database may have some."""
        await self._ready.wait()
        self._ready.clear()
        taken = tuple(self._events)
        self._events.clear()
        return taken


class WakeList:
    """Run ids that one listener has not taken yet, each once."""

    def __init__(self) -> None:
        self._run_ids: dict[str, None] = {}
        self._ready = asyncio.Event()

    def put(self, run_id: str) -> None:
        self._run_ids[run_id] = None
        self._ready.set()

    async def take(self) -> tuple[str, ...]:
        """Wait for at least one id and take all there are."""
        await self._ready.wait()
        self._ready.clear()
        taken = tuple(self._run_ids)
        self._run_ids.clear()
        return taken


class Hub:
    """Who waits for what. Belongs to one event loop."""

    def __init__(self) -> None:
        self._tails: dict[str, set[Subscription]] = {}
        self._listeners: set[WakeList] = set()

    def has_tail(self, run_id: str) -> bool:
        return run_id in self._tails

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Hand committed events of one run to its readers."""
        for subscription in self._tails.get(events[0].run_id, ()):
            for event in events:
                subscription.put(event)

    def wake(self, run_id: str) -> None:
        for listener in self._listeners:
            listener.put(run_id)

    def heard(self, topics: frozenset[str]) -> None:
        """Takes what another process announced."""
        everything = EVERYTHING in topics
        for run_id in list(self._tails) if everything else [topic[1:] for topic in topics if topic[0] == _EVENTS]:
            for subscription in self._tails.get(run_id, ()):
                subscription.look()
        for run_id in ("",) if everything else [topic[1:] for topic in topics if topic[0] == _WAKES]:
            self.wake(run_id)

    @contextmanager
    def subscribed(self, run_id: str) -> Generator[Subscription]:
        subscription = Subscription()
        readers = self._tails.setdefault(run_id, set())
        readers.add(subscription)
        try:
            yield subscription
        finally:
            readers.discard(subscription)
            if not readers:
                self._tails.pop(run_id, None)

    @contextmanager
    def listening(self) -> Generator[WakeList]:
        listener = WakeList()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
