"""Amounts as people type them: money, tokens, steps and time, each in the unit that budgets count in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer

from control.core.meters import MONEY, STEPS, TOKENS, WALL_TIME
from infra.errors import InvalidArgument, Violation
from skyagent.mission.v1 import mission_pb2 as mission

Steps = Annotated[str, typer.Option(help="Steps.")]
Money = Annotated[str, typer.Option(help="US dollars, such as 5 or 0.25.")]
Tokens = Annotated[str, typer.Option(help="Model tokens.")]
WallTime = Annotated[str, typer.Option(help="Time, such as 90s, 10m or 1h30m.")]

_TIME = re.compile(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_MOST = 10**15
_EXAMPLES = {
    STEPS: "number of steps such as 50",
    TOKENS: "number of tokens such as 100000",
    MONEY: "amount of US dollars such as 5 or 0.25",
    WALL_TIME: "time such as 90s, 10m or 1h30m",
}


def given(*, steps: str, money: str, tokens: str, wall_time: str) -> dict[str, int]:
    """What was typed for the options of these names, by kind; raises InvalidArgument naming the option."""
    typed = {STEPS: steps, MONEY: money, TOKENS: tokens, WALL_TIME: wall_time}
    return {kind: parsed(kind, text, f"--{kind.replace('_', '-')}") for kind, text in typed.items() if text}


def some(*, steps: str, money: str, tokens: str, wall_time: str) -> dict[str, int]:
    """The same, of a top-up; raises InvalidArgument for one of nothing."""
    amounts = given(steps=steps, money=money, tokens=tokens, wall_time=wall_time)
    if not amounts:
        told = "say how much: --steps N, --money USD, --tokens N or --wall-time 10m"
        raise InvalidArgument(Violation("", told), reason="NOTHING_GIVEN")
    return amounts


def parsed(kind: str, text: str, field: str) -> int:
    """An amount above 0 in the kind's own unit; raises InvalidArgument."""
    read = {MONEY: _microusd, WALL_TIME: _milliseconds}.get(kind, _whole)
    found = read(text.strip().replace(",", ""))
    if found is None or not 0 < found <= _MOST:
        raise InvalidArgument(Violation(field, f"{text!r} is no {_EXAMPLES[kind]}"), reason="BAD_OPTION")
    return found


def limits_of(amounts: Mapping[str, int]) -> mission.Limits:
    """The limits of a mission that these amounts make."""
    limits = mission.Limits(
        max_steps=min(amounts.get(STEPS, 0), 2**32 - 1),
        max_cost_microusd=amounts.get(MONEY, 0),
        max_tokens=amounts.get(TOKENS, 0),
    )
    if WALL_TIME in amounts:
        limits.max_wall_time.FromMilliseconds(amounts[WALL_TIME])
    return limits


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < len(str(_MOST)) + 1 else None


def _microusd(text: str) -> int | None:
    try:
        microusd = Decimal(text.removeprefix("$")) * 1_000_000
    except InvalidOperation:
        return None
    return int(microusd) if microusd.is_finite() and microusd == microusd.to_integral_value() else None


def _milliseconds(text: str) -> int | None:
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((hours * 60 + minutes) * 60 + seconds) * 1000
