"""The person's answer: a key on a terminal, or the answer given beforehand where there is none."""

from __future__ import annotations

import asyncio
import os
import termios
import tty
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from infra.errors import InvalidArgument, Violation

YES, NO = frozenset((b"y", b"Y")), frozenset((b"n", b"N", b"\n", b"\r", b"\x04", b""))
"""Keys; the empty one is the end of input."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Yes or no, and who gave it: "you", or the variable that was set."""

    granted: bool
    by: str


class Person(Protocol):
    """Whoever is asked."""

    async def answer(self) -> Answer:
        """The answer to the question that is on the screen."""
        ...


class Terminal:
    """Somebody at the keyboard: y is yes; n, Enter or the end of input is no."""

    def __init__(self, keyboard: int) -> None:
        self._keyboard = keyboard

    async def answer(self) -> Answer:
        with one_key_at_a_time(self._keyboard):
            while True:
                key = await _pressed(self._keyboard)
                if key in YES or key in NO:
                    return Answer(key in YES, "you")


@dataclass(frozen=True, slots=True)
class Beforehand:
    """Nobody is there; the answer was given when the proof was started."""

    granted: bool

    async def answer(self) -> Answer:
        return Answer(self.granted, f"APPROVE={'yes' if self.granted else 'no'}")


def person_for(approve: str, keyboard: int) -> Person:
    """Who will be asked. `approve` is yes, no, y, n, or "" for the person at this keyboard, a file descriptor.

    Raises InvalidArgument for anything else, and for "" where there is no terminal: nobody could ever answer.
    """
    if approve.lower() in ("yes", "y", "no", "n"):
        return Beforehand(approve.lower().startswith("y"))
    if approve:
        raise InvalidArgument(Violation("approve", f"{approve!r} is no answer: say yes or no"))
    if not os.isatty(keyboard):
        raise InvalidArgument(
            Violation("approve", "one record waits for a yes and there is no terminal to ask on: set APPROVE=yes or no")
        )
    return Terminal(keyboard)


@contextmanager
def one_key_at_a_time(keyboard: int) -> Generator[None]:
    """Hand keys over unbuffered and unechoed; Ctrl-C still interrupts."""
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


async def any_key(keyboard: int, within_s: float) -> None:
    """Wait for a key, or for so long."""
    with one_key_at_a_time(keyboard), suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await _pressed(keyboard)


async def _pressed(keyboard: int) -> bytes:
    loop = asyncio.get_running_loop()
    pressed = asyncio.Event()
    loop.add_reader(keyboard, pressed.set)
    try:
        await pressed.wait()
    finally:
        loop.remove_reader(keyboard)
    return os.read(keyboard, 1)
