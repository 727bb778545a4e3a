"""What a text that people and pages write stands for: numbers, money, dates, truth values. Pure.

Nothing says which country wrote a text, so a text has readings (all that it may mean) instead of one value: "1.234" is
both 1.234 and 1234. Two texts are the same when they share a reading.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

_CURRENCIES = {
    "€": "EUR", "$": "USD", "us$": "USD", "£": "GBP", "¥": "JPY", "zł": "PLN", "kč": "CZK", "₹": "INR", "fr.": "CHF",
    **{code.lower(): code for code in ("EUR", "USD", "GBP", "CHF", "PLN", "JPY", "CZK", "SEK", "NOK", "DKK", "INR")},
}  # fmt: skip
_CURRENCY = "|".join(re.escape(sign) for sign in sorted(_CURRENCIES, key=len, reverse=True))
_MONEY = re.compile(
    rf"(?P<before>{_CURRENCY})? ?(?P<sign>[-+]?)(?P<open>\()? ?"
    rf"(?P<number>\d[\d.,' ]*)(?P<exponent>e[-+]?\d{{1,2}})?(?P<close>\))? ?(?P<after>{_CURRENCY})?",
)
_IN_TEXT = re.compile(r"\d(?:[\d.,']| (?=\d))*(?:e[-+]?\d{1,2})?")
_GROUPED = re.compile(r"\d{1,3}(?:([.,' ])\d{3})(?:\1\d{3})*")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?P<month>jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?\.?"
_WRITTEN_DATES = (
    re.compile(rf"{_MONTH} {_DAY},? (?P<year>\d{{4}})"),
    re.compile(rf"{_DAY}[ -]{_MONTH},?[ -](?P<year>\d{{4}})"),
)
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?:t00:00(?::00(?:\.0+)?)?z?)?")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_TRUE = frozenset({"true", "yes", "y", "on", "1", "checked", "x", "✓", "✔", "ja", "oui", "sí", "si", "tak"})
_FALSE = frozenset({"false", "no", "n", "off", "0", "unchecked", "✗", "✘", "nein", "non", "nie"})


@dataclass(frozen=True, slots=True)
class Money:
    """A number, and the currency (ISO 4217) when one is written with it."""

    amount: Decimal
    currency: str | None = None


def fold(text: str) -> str:
    """The text with white space, case, width and composition of its characters made equal."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def same_value(one: str, other: str) -> bool:
    """Whether both texts may stand for the same value: text, number, money, date or truth value."""
    left, right = fold(one), fold(other)
    if left == right:
        return True
    if _truth(left) is not None and _truth(left) == _truth(right):
        return True
    if set(dates(one)) & set(dates(other)):
        return True
    return any(_same_money(a, b) for a in money(one) for b in money(other))


def truth(text: str) -> bool | None:
    """What a checkbox, switch or icon says; None when it is no truth value."""
    return _truth(fold(text))


def money(text: str) -> tuple[Money, ...]:
    """Every reading of a text that is a number, with or without a currency; empty when it is none.

    A number with leading zeros is a name ("007"), not a number.
    """
    found = _MONEY.fullmatch(_plain(text))
    if found is None or (found["open"] is None) != (found["close"] is None) or (found["before"] and found["after"]):
        return ()
    sign = found["before"] or found["after"]
    currency = _CURRENCIES[sign] if sign else None
    negative = found["sign"] == "-" or found["open"] is not None
    readings = _numbers(found["number"].strip(), found["exponent"] or "")
    return tuple(Money(-number if negative else number, currency) for number in readings)


def largest_number(text: str) -> Decimal | None:
    """The largest number, sign aside, that any part of the text may stand for: the reading to be careful by."""
    readings = [reading for part in _IN_TEXT.findall(_plain(text)) for reading in _careful(part)]
    return max(readings, default=None)


def dates(text: str) -> tuple[date, ...]:
    """Every day that the text may name; empty when it is no date. "03/04/2026" names two."""
    plain = fold(text)
    if found := _YEAR_FIRST.fullmatch(plain):
        return _days((int(found[1]), int(found[3]), int(found[4])))
    if found := _YEAR_LAST.fullmatch(plain):
        first, second, year = int(found[1]), int(found[3]), int(found[4])
        month_first = () if found[2] == "." else ((year, first, second),)
        return _days((year, second, first), *month_first)
    for pattern in _WRITTEN_DATES:
        if found := pattern.fullmatch(plain):
            return _days((int(found["year"]), _MONTHS.index(found["month"]) + 1, int(found["day"])))
    return ()


def _days(*parts: tuple[int, int, int]) -> tuple[date, ...]:
    days: list[date] = []
    for year, month, day in parts:
        try:
            days.append(date(year, month, day))
        except ValueError:
            continue
    return tuple(dict.fromkeys(days))


def _truth(folded: str) -> bool | None:
    return True if folded in _TRUE else False if folded in _FALSE else None


def _same_money(one: Money, other: Money) -> bool:
    return one.amount == other.amount and (None in (one.currency, other.currency) or one.currency == other.currency)


def _plain(text: str) -> str:
    """Folded, with every script's digits, minus signs and thousands separators as ASCII."""
    digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in fold(text))
    return digits.replace("−", "-").replace("’", "'").replace("٫", ".").replace("٬", ",")


def _careful(part: str) -> tuple[Decimal, ...]:
    """The readings of a number in a text; of one that nobody groups so, all its digits as one number."""
    number, _, exponent = part.partition("e")
    number = re.sub(r"^0+(?=\d)", "", number.rstrip(".,' "))
    readings = _numbers(number, f"e{exponent}" if exponent else "")
    return readings or (Decimal(re.sub(r"\D", "", number)),)


def _numbers(text: str, exponent: str) -> tuple[Decimal, ...]:
    if re.match(r"0\d", text):
        return ()
    candidates = [_whole(text), *(_with_point(text, point) for point in ".,")]
    plain = dict.fromkeys(candidate for candidate in candidates if candidate is not None)
    return tuple(Decimal(candidate + exponent) for candidate in plain)


def _whole(text: str) -> str | None:
    if text.isdecimal():
        return text
    grouped = _GROUPED.fullmatch(text)
    return re.sub(r"\D", "", text) if grouped and not text.startswith("0") else None


def _with_point(text: str, point: str) -> str | None:
    whole, found, fraction = text.rpartition(point)
    if not found or not fraction.isdecimal() or point in whole:
        return None
    digits = _whole(whole)
    return f"{digits}.{fraction}" if digits is not None else None
