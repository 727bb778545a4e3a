"""What a person writes beside what a field takes and holds."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from execution.browser_worker.values import agrees, day, number, typed


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("1200", "1200"),
        ("1,200.50", "1200.50"),
        ("1.200,50", "1200.50"),
        ("1 200", "1200"),
        ("-3.5", "-3.5"),
        ("12,5", "12.5"),
        ("1.234.567", "1234567"),
        ("0.5", "0.5"),
        ("007", None),
        ("1,2,3", None),
        ("", None),
        ("1e3", None),
        ("12 apples", None),
        ("1,200", "1200"),
    ],
)
def test_a_number_is_what_the_text_surely_means(text: str, meant: str | None) -> None:
    assert number(text) == (None if meant is None else Decimal(meant))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-12-31", date(2026, 12, 31)),
        ("31.12.2026", date(2026, 12, 31)),
        ("12/31/2026", date(2026, 12, 31)),
        ("31/12/2026", date(2026, 12, 31)),
        ("03/03/2026", date(2026, 3, 3)),
        ("03/04/2026", None),
        ("31 Dec 2026", date(2026, 12, 31)),
        ("December 31, 2026", date(2026, 12, 31)),
        ("2026-02-30", None),
        ("soon", None),
    ],
)
def test_a_day_is_what_the_text_surely_means(text: str, meant: date | None) -> None:
    assert day(text) == meant


@pytest.mark.parametrize(
    ("kind", "wanted", "found", "matches"),
    [
        ("text", "1200", "1200.00", True),
        ("text", "1,200.00", "1200", True),
        ("text", "007", "7", False),
        ("text", "a", "A", False),
        ("text", " padded ", "padded", True),
        ("number", "1200", "1200.5", False),
        ("date", "31.12.2026", "2026-12-31", True),
        ("text", "2026-12-31", "31.12.2026", True),
        ("time", "2:30 pm", "14:30", True),
        ("checkbox", "yes", "true", True),
        ("checkbox", "no", "true", False),
        ("checkbox", "", "false", True),
        ("select", "credit NOTE", "Credit note", True),
        ("select", "Bill", "Credit note", False),
        ("radio", "High:", "High", True),
        ("textarea", "a\r\nb", "a\nb", True),
        ("datetime-local", "2026-12-31 14:30", "2026-12-31T14:30", True),
    ],
)
def test_a_reading_agrees_when_a_person_would_say_so(kind: str, wanted: str, found: str, *, matches: bool) -> None:
    assert agrees(kind, wanted, found) is matches


@given(st.dates(min_value=date(1000, 1, 1)))
def test_every_day_reads_back_however_it_was_written(moment: date) -> None:
    for text in (moment.isoformat(), moment.strftime("%d.%m.%Y"), f"{moment.day} {moment:%B} {moment.year}"):
        assert typed("date", text) == moment.isoformat()


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=2))
def test_every_amount_reads_back_however_it_was_written(amount: Decimal) -> None:
    assert number(f"{amount:.2f}") == number(f"{amount:,.2f}") == amount


@given(
    st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDE -_", min_size=1),
    st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDE -_", min_size=1),
)
def test_different_words_never_agree(one: str, other: str) -> None:
    assert agrees("text", one, other) is (one.strip() == other.strip())


@pytest.mark.parametrize(
    ("kind", "value"), [("number", "twelve"), ("date", "03/04/2026"), ("time", "noon"), ("datetime-local", "later")]
)
def test_what_cannot_be_meant_for_a_field_is_not_typed(kind: str, value: str) -> None:
    assert typed(kind, value) is None


def test_an_empty_value_clears_a_field_of_any_type() -> None:
    assert {typed(kind, "") for kind in ("text", "number", "date", "time", "datetime-local")} == {""}
