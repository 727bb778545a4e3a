"""What policies make of what a run has spent: mostly on which side of a limit it is, which seldom changes. Pure.

All else that a policy may look at stays the same from step to step of a kind, and policies know neither time nor
chance. So a judgement holds for every later question that differs in spending alone and is on the same sides.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from control.policy_engine.request import Json, JsonValue

_COMPARISONS = frozenset({"<", "<=", ">", ">=", "==", "!="})
_LONG = 2**63
_CONTEXT = {"Var": "context"}
_SPENT = {".": {"left": _CONTEXT, "attr": "spent"}}


@dataclass(frozen=True, slots=True)
class Limit:
    """A kind of spending, by its name in the context, compared with an attribute of the mission or with a number."""

    spent: str
    limit: str | int


class _LooksCloser(Exception):
    """A policy does more with what was spent than to compare it with a limit."""


def limits_of(policies: Json) -> frozenset[Limit] | None:
    """Every comparison that policies (in Cedar's JSON) make of spending; None when they make anything else of it."""
    try:
        return frozenset(_limits(policies))
    except _LooksCloser:
        return None


def likeness(question: Json, limits: frozenset[Limit] | None) -> str | None:
    """Equal for questions that are judged alike; None when that cannot be told."""
    context, mission = question["context"], _mission(question)
    spent = _at(context, "spent")
    if limits is None or not isinstance(context, Mapping) or not isinstance(spent, Mapping):
        return None
    if not all(_is_long(value) for value in spent.values()):  # Cedar refuses it, whichever side it is on
        return None
    sides: list[int] = []
    for limit in sorted(limits, key=str):
        used, bound = spent.get(limit.spent), limit.limit
        bound = _at(mission, bound) if isinstance(bound, str) else bound
        if not isinstance(used, int) or not isinstance(bound, int):
            return None
        sides.append((used > bound) - (used < bound))
    rest = {**context, "spent": sorted(spent)}
    return json.dumps(({**question, "context": rest}, sides))


def _limits(part: JsonValue) -> Iterator[Limit]:
    if part in (_CONTEXT, _SPENT):
        raise _LooksCloser
    if isinstance(part, Mapping):
        for name, inner in part.items():
            yield from _comparison(name, inner) if name in _COMPARISONS else _inside(name, inner)
    elif isinstance(part, Sequence) and not isinstance(part, str):
        for inner in part:
            yield from _limits(inner)


def _inside(name: str, part: JsonValue) -> Iterator[Limit]:
    """What stands in an expression; an attribute of the context other than spending is no matter."""
    harmless = name in (".", "has") and _at(part, "left") == _CONTEXT and _at(part, "attr") != "spent"
    if not harmless:
        yield from _limits(part)


def _comparison(name: str, part: JsonValue) -> Iterator[Limit]:
    left, right = _at(part, "left"), _at(part, "right")
    for spent, bound in ((_spent(left), _bound(right)), (_spent(right), _bound(left))):
        if spent is not None and bound is not None:
            yield Limit(spent, bound)
            return
    yield from _inside(name, part)


def _spent(part: JsonValue | None) -> str | None:
    """The name in context.spent.NAME."""
    found = _at(part, ".")
    name = _at(found, "attr")
    return name if _at(found, "left") == _SPENT and isinstance(name, str) else None


def _bound(part: JsonValue | None) -> str | int | None:
    """The name in resource.NAME, or a number."""
    found, number = _at(part, "."), _at(part, "Value")
    if isinstance(number, int) and not isinstance(number, bool):
        return number
    name = _at(found, "attr")
    return name if _at(found, "left") == {"Var": "resource"} and isinstance(name, str) else None


def _mission(question: Json) -> JsonValue | None:
    entities, uid = question["entities"], question["resource"]
    if not isinstance(entities, Sequence):
        return None
    return next((_at(one, "attrs") for one in entities if _at(one, "uid") == uid), None)


def _is_long(value: JsonValue) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LONG


def _at(value: JsonValue | None, name: str) -> JsonValue | None:
    return value.get(name) if isinstance(value, Mapping) else None
