from __future__ import annotations

from collections import Counter
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.cron import Cron
from control.core.times import Every, Never, Once, When, delay_of, due_after, due_within, passed

MINUTE = 60_000
NOW = 1_790_000_000_000


@given(
    when=st.one_of(
        st.builds(Every, st.integers(1_000, 10**8), st.integers(NOW - 10**7, NOW)),
        st.sampled_from([Cron("*/10 * * * *", "UTC"), Cron("0 6 * * *", "Europe/Berlin"), Cron("0 * * * *", "UTC")]),
    ),
    length_ms=st.integers(0, 3 * 86_400_000),
    most=st.integers(1, 5),
)
def test_of_a_range_the_latest_times_are_found_and_the_first_before_them(when: When, length_ms: int, most: int) -> None:
    first = due_after(when, NOW)
    assert first is not None
    every = list(takewhile(lambda due: due <= first + length_ms, when.after(NOW)))[-5_000:]
    found = passed(when, first, first + length_ms, most)
    assert found.latest == tuple(every[-most:])
    assert found.earlier == (first if first not in found.latest else None)


def test_a_year_of_seconds_is_passed_over_at_once() -> None:
    found = passed(Every(1_000, NOW), NOW + 1_000, NOW + 366 * 86_400_000, 3)
    assert found.latest == tuple(NOW + 366 * 86_400_000 - back for back in (2_000, 1_000, 0))
    assert found.earlier == NOW + 1_000


def test_an_interval_reaches_back_before_its_anchor() -> None:
    assert due_within(Every(MINUTE, NOW), NOW - 2 * MINUTE, NOW, 10) == (NOW - MINUTE, NOW)


def test_one_moment_comes_once() -> None:
    assert due_after(Once(NOW), NOW - 1) == NOW
    assert due_after(Once(NOW), NOW) is None


def test_what_waits_for_others_has_no_times() -> None:
    assert due_after(Never(), NOW) is None


@given(st.integers(0, 10**6))
def test_a_delay_is_within_its_bounds_and_always_the_same(jitter_ms: int) -> None:
    assert 0 <= delay_of("S", NOW, jitter_ms) <= jitter_ms
    assert delay_of("S", NOW, jitter_ms) == delay_of("S", NOW, jitter_ms)


def test_delays_spread_schedules_that_are_due_at_once() -> None:
    quarters = Counter(delay_of(f"schedule {number}", NOW, 9_999) // 2_500 for number in range(1_000))
    assert min(quarters[quarter] for quarter in range(4)) > 180


@pytest.mark.parametrize("most", [1, 3])
def test_a_range_with_one_time_has_no_earlier_one(most: int) -> None:
    assert passed(Once(NOW), NOW, NOW, most).earlier is None
