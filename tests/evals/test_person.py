"""A person answers by one key; where nobody can answer, the answer is asked for beforehand."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import termios
from collections.abc import Generator
from typing import NamedTuple

import pytest

from evals.end_to_end.person import Answer, Terminal, any_key, person_for
from infra.errors import InvalidArgument


class Line(NamedTuple):
    """Both ends of a pseudo-terminal."""

    person: int
    program: int


@pytest.fixture
def line() -> Generator[Line]:
    person, program = pty.openpty()
    yield Line(person, program)
    os.close(person)
    os.close(program)


async def pressed(line: Line, keys: bytes) -> Answer:
    """The answer when these keys come after the question."""
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(Terminal(line.program).answer())
        await asyncio.sleep(0)
        os.write(line.person, keys)
    return asking.result()


@pytest.mark.parametrize(("key", "granted"), [(b"y", True), (b"Y", True), (b"n", False), (b"\n", False)])
async def test_one_key_answers_without_enter(line: Line, key: bytes, *, granted: bool) -> None:
    assert await pressed(line, key) == Answer(granted, "you")


async def test_other_keys_are_passed_over(line: Line) -> None:
    assert (await pressed(line, b"xq y")).granted


async def test_a_key_from_before_the_question_is_no_answer(line: Line) -> None:
    os.write(line.person, b"y\n")
    select.select([line.program], [], [])  # the line has arrived, and nobody has read it
    assert not (await pressed(line, b"n")).granted


async def test_the_terminal_is_left_as_it_was(line: Line) -> None:
    before = termios.tcgetattr(line.program)
    await pressed(line, b"y")
    assert termios.tcgetattr(line.program) == before


async def test_an_interrupted_question_leaves_the_terminal_as_it_was(line: Line) -> None:
    before = termios.tcgetattr(line.program)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(Terminal(line.program).answer())
        await asyncio.sleep(0)
        assert termios.tcgetattr(line.program) != before
        asking.cancel()
    assert termios.tcgetattr(line.program) == before


async def test_any_key_ends_the_wait_and_so_does_time(line: Line) -> None:
    await any_key(line.program, within_s=0.01)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(any_key(line.program, within_s=60))
        await asyncio.sleep(0)
        os.write(line.person, b" ")


@pytest.mark.parametrize("granted", [True, False])
async def test_the_answer_given_beforehand_names_the_variable(*, granted: bool) -> None:
    approve = "yes" if granted else "no"
    person = person_for(approve, keyboard=0)
    assert await person.answer() == Answer(granted, f"APPROVE={approve}")


def test_without_a_terminal_and_without_an_answer_it_says_what_to_set() -> None:
    read, write = os.pipe()
    try:
        with pytest.raises(InvalidArgument, match="set APPROVE=yes or no"):
            person_for("", keyboard=read)
    finally:
        os.close(read)
        os.close(write)


def test_a_terminal_is_asked_when_nothing_was_said(line: Line) -> None:
    assert isinstance(person_for("", keyboard=line.program), Terminal)


def test_an_answer_that_is_neither_yes_nor_no_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="'perhaps' is no answer"):
        person_for("perhaps", keyboard=0)
