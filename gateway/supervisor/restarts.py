"""When a process that died is started again. Pure."""

from __future__ import annotations

from typing import Final

#: Seconds to wait before each start, by how many deaths there were of late: a kill costs nothing, a loop slows down.
DELAYS: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)
#: Seconds that a death counts.
WINDOW: Final = 30.0
#: Deaths within the window from which on a process counts as crash-looping.
LOOPING: Final = 4


def recent(deaths: tuple[float, ...], now: float) -> tuple[float, ...]:
    """The deaths that still count."""
    return tuple(death for death in deaths if now - death <= WINDOW)


def delay(deaths: tuple[float, ...], now: float) -> float:
    """Seconds to wait, given every death so far, the last one included."""
    return DELAYS[min(len(recent(deaths, now)), len(DELAYS)) - 1]


def looping(deaths: tuple[float, ...], now: float) -> bool:
    """Whether starting it again has not helped."""
    return len(recent(deaths, now)) >= LOOPING
