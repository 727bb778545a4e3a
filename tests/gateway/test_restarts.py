"""When a process that died is started again."""

from __future__ import annotations

from gateway.supervisor.restarts import DELAYS, LOOPING, WINDOW, delay, looping, recent


def test_the_first_death_costs_nothing() -> None:
    assert delay((100.0,), 100.0) == 0.0


def test_deaths_in_a_row_wait_longer_and_longer() -> None:
    deaths = tuple(float(second) for second in range(len(DELAYS)))
    waits = [delay(deaths[: count + 1], deaths[count]) for count in range(len(deaths))]
    assert waits == list(DELAYS)


def test_the_wait_has_an_upper_bound() -> None:
    deaths = tuple(float(second) for second in range(20))
    assert delay(deaths, 20.0) == DELAYS[-1]


def test_old_deaths_are_forgotten() -> None:
    assert recent((0.0, 50.0), 0.1 + WINDOW) == (50.0,)
    assert delay((0.0, 1.0, 2.0, 100.0), 100.0) == 0.0


def test_a_process_that_keeps_dying_is_looping() -> None:
    deaths = tuple(float(second) for second in range(LOOPING))
    assert looping(deaths, deaths[-1])
    assert not looping(deaths[1:], deaths[-1])
