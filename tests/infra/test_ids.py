import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from infra.clock import ManualClock
from infra.errors import InvalidArgument
from infra.ids import RandomIds, seeded_ids, system_ids, ulid_int, ulid_ms


class Ends(random.Random):
    """Draws the greatest number there is."""

    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1


@given(st.lists(st.floats(min_value=-5, max_value=5), max_size=50))
def test_ulids_grow_even_when_the_wall_clock_stands_still_or_jumps_back(jumps: list[float]) -> None:
    clock = ManualClock()
    ids = system_ids(clock)
    made = [ids.ulid()]
    for jump in jumps:
        clock.jump(jump)
        made += [ids.ulid(), ids.ulid()]
    assert made == sorted(set(made))


@given(st.integers(min_value=0, max_value=(1 << 47) - 1), st.integers(min_value=0))
def test_ulids_are_written_as_the_library_writes_them(now_ms: int, seed: int) -> None:
    made = seeded_ids(seed, ManualClock(start_ms=now_ms)).ulid()
    assert made == str(ULID.from_int(ulid_int(made)))
    assert len(made) == 26


def test_a_ulid_says_when_it_was_made() -> None:
    clock = ManualClock(start_ms=1_234_567_890_123)
    assert ulid_ms(system_ids(clock).ulid()) == 1_234_567_890_123


def test_the_greatest_random_part_carries_into_the_time_and_still_grows() -> None:
    ids = RandomIds(ManualClock(), Ends())
    first, second = ids.ulid(), ids.ulid()
    assert ulid_int(second) == ulid_int(first) + 1


def test_the_same_seed_and_times_give_the_same_ids() -> None:
    one, two = (seeded_ids(7, ManualClock()) for _ in range(2))
    assert [one.ulid(), one.uuid(), one.secret(), one.fraction()] == [
        two.ulid(),
        two.uuid(),
        two.secret(),
        two.fraction(),
    ]


def test_another_seed_gives_other_ids() -> None:
    assert seeded_ids(1, ManualClock()).ulid() != seeded_ids(2, ManualClock()).ulid()


def test_what_is_no_ulid_is_refused_by_value() -> None:
    with pytest.raises(InvalidArgument, match="'nonsense' is not a ULID"):
        ulid_int("nonsense")
