from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.values import dates, largest_number, money, same_value, truth

cents = st.integers(min_value=0, max_value=10**12)
days = st.dates(min_value=date(1900, 1, 1), max_value=date(2100, 12, 31))


def _english(value: Decimal) -> str:
    return f"{value:,.2f}"


def _german(value: Decimal) -> str:
    return _english(value).replace(",", "_").replace(".", ",").replace("_", ".")


@given(cents)
def test_every_countrys_way_to_write_an_amount_reads_as_that_amount(value: int) -> None:
    amount = Decimal(value).scaleb(-2)
    english = _english(amount)
    for text in (str(amount), english, _german(amount), english.replace(",", "'"), f"€ {english}", f"{english} EUR"):
        assert [reading.amount for reading in money(text)] == [amount], text


@given(cents)
def test_the_careful_reading_is_never_below_the_amount(value: int) -> None:
    amount = Decimal(value).scaleb(-2)
    for text in (str(amount), _english(amount), _german(amount), f"about {_english(amount)} EUR or so"):
        assert (largest_number(text) or 0) >= amount, text


@given(st.text())
def test_no_text_breaks_the_readings(text: str) -> None:
    assert same_value(text, text)
    for reading in (money, dates, truth, largest_number):
        reading(text)


@given(st.text(alphabet="0123456789.,' e-€$yesno/"), st.text(alphabet="0123456789.,' e-€$yesno/"))
def test_sameness_has_no_direction(one: str, other: str) -> None:
    assert same_value(one, other) == same_value(other, one)


@given(days)
def test_a_date_is_the_same_however_it_is_written(day: date) -> None:
    iso = day.isoformat()
    written = (
        day.strftime("%B %d, %Y"),
        f"{day:%b}. {day.day}, {day.year}",
        f"{day.day} {day:%b} {day.year}",
        f"{day.day}.{day.month}.{day.year}",
        f"{day:%d/%m/%Y}",
    )
    for text in written:
        assert same_value(iso, text), text
    assert not same_value(iso, (day + timedelta(days=1)).isoformat())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("  Office   Supplies ", "office supplies"),
        ("yes", "True"),
        ("no", "FALSE"),
        ("12500.00", "12,500.00"),
        ("1.0", "1"),
        ("€ 99", "99.00"),
        ("Sept. 3, 2026", "2026-09-03"),
        ("(1,200.00)", "-1200"),
        ("ﬁne", "fine"),
    ],
)
def test_texts_that_stand_for_the_same_value_are_the_same(one: str, other: str) -> None:
    assert same_value(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("99.00", "99.01"),
        ("12500.00", "1250.00"),
        ("€ 99", "$ 99"),
        ("007", "7"),
        ("0", ""),
        ("no", ""),
        ("INV-7", "INV-07"),
        ("2026-11-03", "2026-11-04"),
        ("03.04.2026", "2026-03-04"),
        ("yes", "no"),
        ("-5", "5"),
    ],
)
def test_texts_that_stand_for_different_values_are_different(one: str, other: str) -> None:
    assert not same_value(one, other)


@pytest.mark.parametrize(
    ("text", "largest"),
    [("1.234", "1234"), ("1e6", "1000000"), ("0.5", "0.5"), ("٣٤٥", "345"), ("１２", "12"), ("1,23,456", "123456")],
)
def test_of_several_readings_the_careful_one_is_the_largest(text: str, largest: str) -> None:
    assert largest_number(text) == Decimal(largest)
