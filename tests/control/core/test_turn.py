from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.times import Every, Never, Once, delay_of
from control.core.turn import (
    MOST_WAITING,
    CatchUp,
    Cause,
    Firing,
    Overlap,
    Standing,
    State,
    Success,
    Turn,
    Upstream,
    cycle,
    joined_successes,
    rest_ms,
    turn,
)

SECOND = 1_000
HOUR = 3_600 * SECOND
NOW = 1_790_000_000_000


def hourly(**more: object) -> Standing:
    """Due every full hour, from one hour after NOW on."""
    given = {"schedule_id": "S", "when": Every(HOUR, NOW), "next_ms": NOW + HOUR, **more}
    return Standing(**given)  # pyright: ignore[reportArgumentType] -- its fields by name


def told(decided: Turn) -> list[tuple[int, str]]:
    return [((firing.due_ms - NOW) // HOUR, firing.state) for firing in decided.firings]


def test_before_its_time_nothing_happens() -> None:
    assert turn(hourly(), NOW + HOUR - 1) == Turn(next_ms=NOW + HOUR, wake_ms=NOW + HOUR)


def test_a_due_time_starts_and_the_next_one_is_awaited() -> None:
    decided = turn(hourly(), NOW + HOUR)
    assert decided == Turn((Firing(NOW + HOUR, Cause.TIME, State.STARTING),), NOW + 2 * HOUR, NOW + 2 * HOUR)


def test_what_is_once_is_over_then() -> None:
    decided = turn(Standing("S", Once(NOW), next_ms=NOW), NOW + 5)
    assert (told(decided), decided.next_ms, decided.wake_ms) == ([(0, State.STARTING)], None, None)


def test_a_delay_puts_off_the_start_and_not_the_due_time() -> None:
    jitter_ms = 600 * SECOND
    delay_ms = delay_of("S", NOW + HOUR, jitter_ms)
    early = turn(hourly(jitter_ms=jitter_ms), NOW + HOUR + delay_ms - 1)
    assert (early.firings, early.wake_ms) == ((), NOW + HOUR + delay_ms)
    assert told(turn(hourly(jitter_ms=jitter_ms), NOW + HOUR + delay_ms)) == [(1, State.STARTING)]


def test_of_times_that_passed_the_latest_starts_once_for_all() -> None:
    decided = turn(hourly(), NOW + 5 * HOUR + SECOND)
    assert told(decided) == [(1, State.SKIPPED), (5, State.STARTING)]
    assert decided.firings[0].through_ms == NOW + 4 * HOUR
    assert decided.next_ms == NOW + 6 * HOUR


def test_of_times_that_passed_every_one_starts_one_after_the_other() -> None:
    decided = turn(hourly(catch_up=CatchUp.ALL), NOW + 3 * HOUR)
    assert told(decided) == [(1, State.STARTING), (2, State.WAITING), (3, State.WAITING)]
    assert {firing.cause for firing in decided.firings} == {Cause.CATCH_UP}


def test_of_times_that_passed_only_so_many_start_as_were_asked_for() -> None:
    decided = turn(hourly(catch_up=CatchUp.ALL, catch_up_limit=2), NOW + 9 * HOUR)
    assert told(decided) == [(1, State.SKIPPED), (8, State.STARTING), (9, State.WAITING)]


def test_times_that_passed_are_left_out_where_nothing_is_to_be_caught_up() -> None:
    late = turn(hourly(catch_up=CatchUp.NONE), NOW + 3 * HOUR + 60 * SECOND)
    assert told(late) == [(1, State.SKIPPED)]
    assert late.firings[0].through_ms == NOW + 3 * HOUR
    in_time = turn(hourly(catch_up=CatchUp.NONE), NOW + 3 * HOUR + SECOND)
    assert told(in_time) == [(1, State.SKIPPED), (3, State.STARTING)]


def test_while_a_run_is_under_way_a_time_is_left_out_and_the_run_is_named() -> None:
    (firing,) = turn(hourly(under_way=("R",)), NOW + HOUR).firings
    assert (firing.state, firing.reason) == (State.SKIPPED, "run R was still under way")


def test_a_time_that_queues_waits_for_the_end_of_the_run_and_starts_then() -> None:
    standing = hourly(overlap=Overlap.QUEUE, under_way=("R",))
    (waits,) = turn(standing, NOW + HOUR).firings
    assert (waits.state, waits.reason) == (State.WAITING, "waits for the end of run R")
    later = replace(standing, waiting=(waits,), next_ms=NOW + 2 * HOUR)
    assert turn(later, NOW + HOUR + SECOND).firings == ()
    assert told(turn(replace(later, under_way=()), NOW + HOUR + SECOND)) == [(1, State.STARTING)]


def test_a_queue_has_an_end() -> None:
    waiting = tuple(
        Firing(NOW - number, Cause.TIME, reason="waits for the end of run R") for number in range(MOST_WAITING, 0, -1)
    )
    standing = hourly(overlap=Overlap.QUEUE, under_way=("R",), waiting=waiting)
    assert told(turn(standing, NOW + HOUR)) == [(1, State.SKIPPED)]


def test_the_run_before_is_cancelled_and_its_end_awaited() -> None:
    standing = hourly(overlap=Overlap.CANCEL_PREVIOUS, under_way=("R",))
    decided = turn(standing, NOW + HOUR)
    assert (told(decided), decided.cancel) == ([(1, State.WAITING)], ("R",))
    again = turn(replace(standing, waiting=decided.firings, next_ms=NOW + 2 * HOUR), NOW + HOUR + SECOND)
    assert (again.firings, again.cancel) == ((), ("R",))  # whoever decided may have died before it said so
    newer = turn(replace(standing, waiting=decided.firings, next_ms=NOW + 2 * HOUR), NOW + 2 * HOUR)
    assert told(newer) == [(1, State.SKIPPED), (2, State.WAITING)]


def test_nothing_starts_while_it_is_paused() -> None:
    waiting = (Firing(NOW, Cause.BACKFILL),)
    assert turn(hourly(paused=True, waiting=waiting), NOW + 9 * HOUR) == Turn(next_ms=NOW + HOUR)


def test_after_a_refusal_it_rests_and_says_why() -> None:
    standing = hourly(rest_until_ms=NOW + 3 * HOUR, refusal="no such mission", waiting=(Firing(NOW, Cause.BACKFILL),))
    decided = turn(standing, NOW + HOUR)
    assert told(decided) == [(1, State.SKIPPED), (0, State.WAITING)]
    assert all("no such mission" in firing.reason for firing in decided.firings)
    assert decided.wake_ms == NOW + 2 * HOUR
    assert told(turn(standing, NOW + 3 * HOUR))[-1] == (0, State.WAITING)  # behind the time that starts first
    assert (3, State.STARTING) in told(turn(standing, NOW + 3 * HOUR))


def test_rests_grow_and_have_an_end() -> None:
    assert [rest_ms(refusals) // SECOND for refusals in (1, 2, 3, 50)] == [60, 120, 240, 6 * 3_600]


def test_each_success_of_one_mission_counts() -> None:
    upstream = Upstream("M", (Success(NOW, "A"), Success(NOW + 1, "B")))
    due, seen = joined_successes([upstream])
    assert [(firing.due_ms, firing.occasion) for firing in due] == [(NOW, "A"), (NOW + 1, "B")]
    assert seen == (("M", Success(NOW + 1, "B")),)


def test_of_several_missions_each_must_have_succeeded_anew() -> None:
    first, second = Success(NOW, "A"), Success(NOW + 5, "B")
    assert joined_successes([Upstream("M", (first,)), Upstream("N")]) == ((), ())
    due, seen = joined_successes([Upstream("M", (first, second)), Upstream("N", (Success(NOW + 2, "C"),))])
    assert [(firing.due_ms, firing.occasion) for firing in due] == [(NOW + 5, "C")]
    assert seen == (("M", second), ("N", Success(NOW + 2, "C")))


def test_successes_of_others_start_it() -> None:
    standing = Standing("S", Never(), upstream=(Upstream("M", (Success(NOW, "A"), Success(NOW + 1, "B"))),))
    assert [firing.state for firing in turn(standing, NOW + 2).firings] == [State.STARTING, State.SKIPPED]
    queued = replace(standing, overlap=Overlap.QUEUE)
    assert [firing.state for firing in turn(queued, NOW + 2).firings] == [State.STARTING, State.WAITING]


@pytest.mark.parametrize(
    ("waits_for", "circle"),
    [
        ({}, ()),
        ({"a": {"a"}}, ("a", "a")),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, ("a", "b", "c", "a")),
        ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set[str]()}, ()),
        ({"a": {"b"}, "b": {"c"}, "c": {"b"}}, ()),  # a circle of others is not its own doing
    ],
)
def test_a_circle_is_found_and_named(waits_for: dict[str, set[str]], circle: tuple[str, ...]) -> None:
    assert cycle(waits_for, "a") == circle


Step = tuple[Literal["pass", "set back", "begin", "end", "die"], int]


@dataclass
class World:
    """A schedule, whoever looks after it, and what a database would keep of both."""

    standing: Standing
    now_ms: int = NOW
    kept: dict[tuple[int, str], Firing] = field(default_factory=dict[tuple[int, str], Firing])
    began: list[int] = field(default_factory=list[int])
    at_once: int = 0

    def look(self) -> None:
        decided = turn(self.standing, self.now_ms)
        for firing in decided.firings:
            key = firing.due_ms, firing.occasion
            before = self.kept.get(key)
            assert before is None or before.state is State.WAITING, "a due time was taken up twice"
            self.kept[key] = firing
        self.stand(next_ms=decided.next_ms)

    def stand(self, **more: object) -> None:
        states = [firing for _, firing in sorted(self.kept.items())]
        waiting = tuple(firing for firing in states if firing.state is State.WAITING)
        starting = any(firing.state is State.STARTING for firing in states)
        self.standing = replace(self.standing, waiting=waiting, starting=starting, **more)  # pyright: ignore[reportArgumentType]

    def take(self, step: Step) -> None:
        what, much = step
        if what == "pass":
            self.now_ms += much
        elif what == "set back":
            self.now_ms -= much
        elif what == "begin":
            for key, firing in self.kept.items():
                if firing.state is State.STARTING:
                    self.kept[key] = replace(firing, state=State.STARTED)
                    self.began.append(firing.due_ms)
                    self.stand(under_way=(*self.standing.under_way, str(firing.due_ms)))
                    self.at_once = max(self.at_once, len(self.standing.under_way))
        elif what == "end":
            self.stand(under_way=())
        # Who dies leaves what is kept; the next one looks at it.
        self.look()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(0, 30 * SECOND)),
        st.tuples(st.just("pass"), st.just(HOUR)),
        st.tuples(st.just("set back"), st.just(HOUR)),
        st.tuples(st.sampled_from(["begin", "end", "die"]), st.just(0)),
    ),
    max_size=40,
)


@given(
    steps=STEPS,
    overlap=st.sampled_from(Overlap),
    catch_up=st.sampled_from(CatchUp),
    jitter_ms=st.sampled_from([0, 4 * SECOND]),
)
def test_every_due_time_is_taken_up_once_however_time_passes_and_whoever_dies(
    steps: list[Step], overlap: Overlap, catch_up: CatchUp, jitter_ms: int
) -> None:
    when = Every(5 * SECOND, NOW)
    standing = Standing("S", when, overlap, catch_up, jitter_ms=jitter_ms, next_ms=NOW + 5 * SECOND)
    world = World(standing)
    for step in steps:
        world.take(step)
    through = world.standing.next_ms
    assert through is not None
    accounted = [
        due
        for (due_ms, _), firing in sorted(world.kept.items())
        for due in takewhile(lambda due, last=firing.through_ms or due_ms: due <= last, when.after(due_ms - 1))
    ]
    assert accounted == list(takewhile(lambda due: due < through, when.after(NOW)))
    assert len(world.began) == len(set(world.began))
    assert world.at_once <= 1
