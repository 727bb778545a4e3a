"""What a schedule does next: which due times it takes up, starts, lets wait or leaves out. Pure.

A turn is decided from everything that is known of a schedule at one moment and is written as a whole, or not at all: it
moves the next due time in the same transaction, so a due time is taken up once. From STARTING on a firing can only
become STARTED or REFUSED, whoever carries it out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from control.core.times import Never, When, delay_of, due_after, passed

LATE_MS = 30_000
"""From so much on a due time counts as passed for those that want no catching up."""
MOST_WAITING = 100
"""Firings that may wait for the end of earlier ones."""
_FIRST_REST_MS = 60_000
_LONGEST_REST_MS = 6 * 3_600_000


class Overlap(Enum):
    """What happens when a run is still under way."""

    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel previous"


class CatchUp(Enum):
    """What happens to due times that passed while nobody looked."""

    ONE = "one"
    ALL = "all"
    NONE = "none"


class State(StrEnum):
    """What became of a firing so far."""

    WAITING = "WAITING"
    STARTING = "STARTING"
    STARTED = "STARTED"
    SKIPPED = "SKIPPED"
    REFUSED = "REFUSED"


class Cause(StrEnum):
    """What made a schedule fire."""

    TIME = "TIME"
    CATCH_UP = "CATCH_UP"
    BACKFILL = "BACKFILL"
    TRIGGER = "TRIGGER"
    SUCCESS = "SUCCESS"

    @property
    def patient(self) -> bool:
        """Whether it waits for what is under way, whatever the schedule does with times that overlap."""
        return self in (Cause.CATCH_UP, Cause.BACKFILL)


@dataclass(frozen=True, slots=True)
class Firing:
    """A due time. (schedule, due_ms, occasion) is its key; the occasion of a time is empty.

    `through_ms` is set when it stands for all due times from due_ms to that one.
    """

    due_ms: int
    cause: Cause
    state: State = State.WAITING
    occasion: str = ""
    reason: str = ""
    run_id: str = ""
    through_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Success:
    """A run that succeeded, and when."""

    finish_ms: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Upstream:
    """A mission that is waited for, and its successes that were not taken up yet, the earliest first."""

    mission_id: str
    fresh: tuple[Success, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """A schedule at one moment."""

    schedule_id: str
    when: When
    overlap: Overlap = Overlap.SKIP
    catch_up: CatchUp = CatchUp.ONE
    catch_up_limit: int = 100
    jitter_ms: int = 0
    paused: bool = False
    next_ms: int | None = None
    rest_until_ms: int = 0
    """Nothing starts before, because of refusals; `refusal` says of what."""
    refusal: str = ""
    waiting: tuple[Firing, ...] = ()
    """In the order in which they became due."""
    starting: bool = False
    under_way: tuple[str, ...] = ()
    """Runs of it that have not ended."""
    upstream: tuple[Upstream, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """What is written: firings, new or changed, and where the schedule stands then; and the runs to be cancelled."""

    firings: tuple[Firing, ...] = ()
    next_ms: int | None = None
    wake_ms: int | None = None
    """When to look again, if nothing happens before."""
    seen: tuple[tuple[str, Success], ...] = ()
    """The latest success of each mission that was taken up."""
    cancel: tuple[str, ...] = ()


@dataclass(slots=True)
class _Deciding:
    standing: Standing
    now_ms: int
    decided: list[Firing] = field(default_factory=list[Firing])
    cancel: tuple[str, ...] = ()

    @property
    def resting(self) -> bool:
        return self.now_ms < self.standing.rest_until_ms

    @property
    def busy(self) -> str:
        """What is under way, for a reason; empty when nothing is."""
        if self.standing.under_way:
            return f"run {self.standing.under_way[0]}"
        if self.standing.starting or any(firing.state is State.STARTING for firing in self.decided):
            return "the run before"
        return ""

    def end(self, firing: Firing, state: State, reason: str = "") -> None:
        self.decided.append(replace(firing, state=state, reason=reason))

    def wait(self, firing: Firing, reason: str) -> None:
        self.decided.append(replace(firing, reason=reason))


def turn(standing: Standing, now_ms: int) -> Turn:
    """Everything that is to be done at this moment."""
    if standing.paused:
        return Turn(next_ms=standing.next_ms)
    deciding = _Deciding(standing, now_ms)
    due, next_ms = _times(deciding)
    joined, seen = joined_successes(standing.upstream)
    fresh = (*standing.waiting, *due, *joined)
    _place(deciding, [firing for firing in fresh if not firing.cause.patient])
    _place_patient(deciding, [firing for firing in fresh if firing.cause.patient])
    changed = tuple(firing for firing in deciding.decided if firing not in standing.waiting)
    rests = deciding.resting and any(firing.state is State.WAITING for firing in deciding.decided)
    wakes = [*((standing.rest_until_ms,) if rests else ()), *(_start_of(standing, ms) for ms in (next_ms,) if ms)]
    return Turn(changed, next_ms, min(wakes, default=None), seen, deciding.cancel)


def rest_ms(refusals: int) -> int:
    """How long a schedule rests after so many refusals in a row."""
    return min(_FIRST_REST_MS * 2 ** (min(refusals, 30) - 1), _LONGEST_REST_MS)


def joined_successes(upstream: Sequence[Upstream]) -> tuple[tuple[Firing, ...], tuple[tuple[str, Success], ...]]:
    """What successes of other missions make due, and the latest that were taken up.

    Each success of one mission counts; of several missions every one needs a success, and all there are count as one.
    """
    if not upstream or not all(mission.fresh for mission in upstream):
        return (), ()
    seen = tuple((mission.mission_id, mission.fresh[-1]) for mission in upstream)
    if len(upstream) == 1:
        return tuple(_after(success.finish_ms, success.run_id) for success in upstream[0].fresh), seen
    latest = max(success.finish_ms for _, success in seen)
    return (_after(latest, max(success.run_id for _, success in seen)),), seen


def cycle(waits_for: Mapping[str, Collection[str]], start: str) -> tuple[str, ...]:
    """Schedules from `start` that wait for each other in a circle back to it; empty when there is no circle."""
    before = {start: ""}
    waiting = [start]
    while waiting:
        one = waiting.pop()
        for other in sorted(waits_for.get(one, ())):
            if other == start:
                chain = [one]
                while chain[-1] != start:
                    chain.append(before[chain[-1]])
                return (*reversed(chain), start)
            if other not in before:
                before[other] = one
                waiting.append(other)
    return ()


def _after(due_ms: int, run_id: str) -> Firing:
    return Firing(due_ms, Cause.SUCCESS, occasion=run_id)


def _start_of(standing: Standing, due_ms: int) -> int:
    return due_ms + delay_of(standing.schedule_id, due_ms, standing.jitter_ms)


def _times(deciding: _Deciding) -> tuple[list[Firing], int | None]:
    """Due times that are to be placed, and the next one to come; what is left out at once is decided here."""
    standing, now_ms = deciding.standing, deciding.now_ms
    first = standing.next_ms
    if first is None or isinstance(standing.when, Never) or _start_of(standing, first) > now_ms:
        return [], first
    most = standing.catch_up_limit if standing.catch_up is CatchUp.ALL else 1
    reached = passed(standing.when, first, max(first, now_ms - standing.jitter_ms), most)
    next_ms = due_after(standing.when, reached.latest[-1])
    several = reached.latest[-1] != first
    late = now_ms - _start_of(standing, reached.latest[-1]) > LATE_MS
    if deciding.resting:
        _leave_out(deciding, first, reached.latest[-1], f"resting after a refusal: {standing.refusal}")
        return [], next_ms
    if standing.catch_up is CatchUp.NONE and late:
        _leave_out(deciding, first, reached.latest[-1], "it passed while no scheduler ran")
        return [], next_ms
    if reached.earlier is not None:
        through = _before(standing.when, first, reached.latest[0])
        kept = f"the latest {most} are" if most > 1 else "the one after is"
        _leave_out(deciding, first, through, f"it passed while no scheduler ran; {kept} started")
    cause = Cause.CATCH_UP if several and standing.catch_up is CatchUp.ALL else Cause.TIME
    return [Firing(due_ms, cause) for due_ms in reached.latest], next_ms


def _before(when: When, first_ms: int, due_ms: int) -> int:
    """The last due time before one of them."""
    return passed(when, first_ms, due_ms - 1, 1).latest[-1]


def _leave_out(deciding: _Deciding, first_ms: int, last_ms: int, reason: str) -> None:
    through = last_ms if last_ms != first_ms else None
    occasion = "passed" if through else ""
    deciding.end(Firing(first_ms, Cause.TIME, occasion=occasion, through_ms=through), State.SKIPPED, reason)


def _place(deciding: _Deciding, firings: Sequence[Firing]) -> None:
    """Starts what may start; the rest waits or is left out, as the schedule wants it when runs overlap."""
    overlap = deciding.standing.overlap
    waits = 0
    for number, firing in enumerate(firings, 1):
        busy = deciding.busy
        if overlap is Overlap.CANCEL_PREVIOUS and number < len(firings):
            deciding.end(firing, State.SKIPPED, "a later one was due before it could start")
        elif deciding.resting:
            deciding.wait(firing, f"resting after a refusal: {deciding.standing.refusal}")
        elif not busy:
            deciding.end(firing, State.STARTING)
        elif overlap is Overlap.SKIP:
            deciding.end(firing, State.SKIPPED, f"{busy} was still under way")
        elif waits >= MOST_WAITING:
            deciding.end(firing, State.SKIPPED, f"{MOST_WAITING} others wait already")
        else:
            waits += 1
            _wait_for(deciding, firing, busy)


def _wait_for(deciding: _Deciding, firing: Firing, busy: str) -> None:
    cancels = deciding.standing.overlap is Overlap.CANCEL_PREVIOUS
    if cancels:
        deciding.cancel = deciding.standing.under_way
    deciding.wait(firing, f"waits for the end of {busy}{', which is cancelled' if cancels else ''}")


def _place_patient(deciding: _Deciding, firings: Sequence[Firing]) -> None:
    for firing in firings:
        busy = deciding.busy
        if deciding.resting:
            deciding.wait(firing, f"resting after a refusal: {deciding.standing.refusal}")
        elif busy:
            deciding.wait(firing, f"waits for the end of {busy}")
        else:
            deciding.end(firing, State.STARTING)
