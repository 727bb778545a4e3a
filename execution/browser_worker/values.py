"""What a person writes, what a field takes, and whether the one is the other. Pure."""

from __future__ import annotations

import re
from datetime import date, time
from decimal import Decimal
from typing import Final

_PLAIN: Final = re.compile(r"[-+]?(?:0|[1-9]\d*)(?:\.\d+)?|[-+]?\.\d+")
_COMMA_GROUPS: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_POINT_GROUPS: Final = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+,\d+|[-+]?[1-9]\d{0,2}(?:\.\d{3}){2,}")
_COMMA_DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9]\d*),(?:\d{1,2}|\d{4,})")
_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_TRUE: Final = frozenset({"true", "yes", "on", "1", "x", "checked", "y"})
_CHOICES: Final = frozenset({"select", "radio"})
_NUMBERS: Final = frozenset({"number", "range"})


def number(text: str) -> Decimal | None:
    """The number that the text surely means: 1200, 1200.00, 1,200.00, 1.200,00; None for 007 or 1,2,3."""
    text = re.sub(r"[\s\u00a0'’]", "", text)
    if _PLAIN.fullmatch(text):
        return Decimal(text)
    if _COMMA_GROUPS.fullmatch(text):
        return Decimal(text.replace(",", ""))
    if _POINT_GROUPS.fullmatch(text) or _COMMA_DECIMAL.fullmatch(text):
        return Decimal(text.replace(".", "").replace(",", "."))
    return None


def day(text: str) -> date | None:
    """The day that the text surely means; None also when day and month could be either way round (03/04/2026)."""
    text = text.strip().removesuffix("T00:00:00").removesuffix("T00:00")
    if found := re.fullmatch(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})", text):
        return _date(found[1], found[2], found[3])
    if found := re.fullmatch(r"(\d{1,2})\.\s?(\d{1,2})\.\s?(\d{4})", text):
        return _date(found[3], found[2], found[1])
    if found := re.fullmatch(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})", text):
        if int(found[1]) > len(_MONTHS) or found[1] == found[2]:
            return _date(found[3], found[2], found[1])
        return _date(found[3], found[1], found[2]) if int(found[2]) > len(_MONTHS) else None
    return _day_in_words(text)


def _day_in_words(text: str) -> date | None:
    found = re.fullmatch(r"(\d{1,2})\.?\s+([A-Za-z]{3,9})\.?,?\s+(\d{4})", text)
    other = re.fullmatch(r"([A-Za-z]{3,9})\.?\s+(\d{1,2}),?\s+(\d{4})", text)
    in_order = (found[3], found[2], found[1]) if found else (other[3], other[1], other[2]) if other else None
    if in_order is None or in_order[1][:3].lower() not in _MONTHS:
        return None
    return _date(in_order[0], str(_MONTHS.index(in_order[1][:3].lower()) + 1), in_order[2])


def _date(year: str, month: str, of_month: str) -> date | None:
    try:
        return date(int(year), int(month), int(of_month))
    except ValueError:
        return None


def clock_time(text: str) -> time | None:
    """The time of day that the text means: 14:30, 2:30 pm, 14:30:05."""
    found = re.fullmatch(r"\s*(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?(?:\.\d+)?\s*([AaPp])?\.?(?:[Mm])?\.?\s*", text)
    if not found or not (found[2] or found[4]):
        return None
    hour = int(found[1])
    if found[4]:
        hour = hour % 12 + (12 if found[4] in "pP" else 0)
    try:
        return time(hour, int(found[2] or 0), int(found[3] or 0))
    except ValueError:
        return None


def typed(kind: str, value: str) -> str | None:
    """What to put into a field of that type; None when the value cannot be meant for it."""
    match kind:
        case "number" | "range":
            meant = number(value)
            return value.strip() if not value.strip() else None if meant is None else format(meant, "f")
        case "date":
            meant_day = day(value)
            return "" if not value.strip() else None if meant_day is None else meant_day.isoformat()
        case "time":
            moment = clock_time(value)
            return "" if not value.strip() else None if moment is None else _short(moment)
        case "datetime-local":
            return _moment(value)
        case _:
            return value


def _moment(value: str) -> str | None:
    if not value.strip():
        return ""
    first, _, rest = value.strip().replace("T", " ").rpartition(" ")
    if rest[:1] in "aApP":
        first, _, hour = first.rpartition(" ")
        rest = hour + rest
    meant, moment = day(first), clock_time(rest)
    return f"{meant.isoformat()}T{_short(moment)}" if meant and moment else None


def _short(moment: time) -> str:
    return moment.isoformat("minutes" if moment.second == 0 else "seconds")


def agrees(kind: str, wanted: str, found: str, raw: str = "") -> bool:
    """Whether what was read back is what was asked for. `raw` is the value behind a chosen label."""
    if kind in {"checkbox", "switch"} or (kind == "radio" and found in {"true", "false"}):
        return (_folded(wanted) in _TRUE) == (found == "true")
    if kind in _CHOICES:
        if kind == "radio" and _folded(wanted) in _TRUE and found:
            return True
        return _folded(wanted) in {_folded(found), _folded(raw)}
    if _text(wanted) == _text(found):
        return True
    as_numbers = number(wanted), number(found)
    if None not in as_numbers:
        return as_numbers[0] == as_numbers[1]
    if kind == "datetime-local":
        return typed(kind, wanted) == found
    if kind in _NUMBERS:
        return False
    days = day(wanted), day(found)
    if None not in days:
        return days[0] == days[1]
    times = clock_time(wanted), clock_time(found)
    return None not in times and times[0] == times[1]


def _text(value: str) -> str:
    return value.replace("\r\n", "\n").replace("\u00a0", " ").strip()


def _folded(value: str) -> str:
    return re.sub(r"[\s:*]+$", "", re.sub(r"\s+", " ", value).strip().lower())
