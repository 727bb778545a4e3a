"""Whether a process can do its work: facts that are looked at again and again, by a loop and not by whoever asks.

Each fact is looked at on its own, so that one that hangs is told as such beside the others. Asking costs nothing and
breaks nothing: what is answered is what was found last, and how long ago.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum

from infra.clock import Clock
from infra.errors import SkyError, cause_of
from infra.log import event_logger

EVERY, AGAIN = 5.0, 1.0
"""Seconds between two looks at a fact that is well, and at one that is not."""
PATIENCE = 5.0
"""Seconds after which a look that has not ended counts as failed."""
LOOP_EVERY = 0.5
LAG_DEGRADED, LAG_FAILING = 1.0, 5.0
"""Seconds by which the event loop may be late."""
LOOP = "event-loop"

log = event_logger(__name__)


class State(IntEnum):
    """How something stands, the worst highest."""

    WELL = 1
    DEGRADED = 2
    FAILING = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look found; where it is not well, `detail` says what to do."""

    state: State
    detail: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that was looked at; `age` is in seconds."""

    name: str
    state: State
    detail: str
    age: float


Look = Callable[[], Awaitable[Finding]]


@dataclass(slots=True)
class _Watched:
    name: str
    look: Look
    finding: Finding
    since: float
    looking: bool = False


@dataclass(slots=True)
class Health:
    """The facts of one process. Give it looks while services open; `watch` runs as long as the process serves."""

    clock: Clock
    _watched: list[_Watched] = field(default_factory=list[_Watched])
    _late: float = 0.0

    def add(self, name: str, look: Look) -> None:
        """Another fact; services name those that they need."""
        not_yet = Finding(State.WELL, "not looked at yet")
        self._watched.append(_Watched(name, look, not_yet, self.clock.monotonic()))

    def facts(self) -> tuple[Fact, ...]:
        """All of them as they were found last, the event loop's own first."""
        now = self.clock.monotonic()
        return (_loop(self._late), *(_fact(watched, now) for watched in self._watched))

    def failing(self) -> frozenset[str]:
        """Names of those that fail now."""
        return frozenset(fact.name for fact in self.facts() if fact.state is State.FAILING)

    async def watch(self, changed: Callable[[], Awaitable[None]]) -> None:
        """Looks until cancelled, and tells after every look."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_loop(changed))
            for watched in self._watched:
                group.create_task(self._look_again_and_again(watched))

    async def _watch_loop(self, changed: Callable[[], Awaitable[None]]) -> None:
        while True:
            before = self.clock.monotonic()
            await self.clock.sleep(LOOP_EVERY)
            self._late = max(0.0, self.clock.monotonic() - before - LOOP_EVERY)
            await changed()

    async def _look_again_and_again(self, watched: _Watched) -> None:
        while True:
            watched.since, watched.looking = self.clock.monotonic(), True
            found = await _found(watched.look)
            if found.state is not watched.finding.state:
                log.info("health.changed", fact=watched.name, state=found.state.name, detail=found.detail)
            watched.finding, watched.since, watched.looking = found, self.clock.monotonic(), False
            await self.clock.sleep(EVERY if found.state is State.WELL else AGAIN)


def worst(states: Iterable[State]) -> State:
    """What a whole is when its parts are so."""
    return max(states, default=State.WELL)


def problems(facts: Iterable[Fact]) -> Iterator[str]:
    """What is not well, in words."""
    return (f"{fact.name}: {fact.detail}" for fact in facts if fact.state is not State.WELL)


async def _found(look: Look) -> Finding:
    try:
        return await look()
    except SkyError as error:
        return Finding(State.FAILING, error.message)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what was found
        cause = cause_of(error)
        return Finding(State.FAILING, f"{type(cause).__name__}: {cause}")


def _fact(watched: _Watched, now: float) -> Fact:
    age = now - watched.since
    if watched.looking and age > PATIENCE:
        return Fact(watched.name, State.FAILING, f"does not answer, for {age:.0f} s by now", age)
    return Fact(watched.name, watched.finding.state, watched.finding.detail, age)


def _loop(late: float) -> Fact:
    state = State.FAILING if late > LAG_FAILING else State.DEGRADED if late > LAG_DEGRADED else State.WELL
    told = "too much runs on this processor, or something blocks the loop" if late > LAG_DEGRADED else "in time"
    return Fact(LOOP, state, f"{late * 1000:.0f} ms late: {told}", 0.0)
