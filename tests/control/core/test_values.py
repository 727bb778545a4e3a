from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.values import Money, dates, largest_number, money, same_value, truth

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


@pytest.mark.parametrize(
    "text", ["true", "Yes", "y", "ON", "1", "checked", "X", "✓", "✔", "ja", "oui", "sí", "si", "tak"]
)
def test_a_word_or_sign_for_yes_is_true(text: str) -> None:
    assert truth(f" {text} ") is True


@pytest.mark.parametrize("text", ["false", "No", "n", "OFF", "0", "unchecked", "✗", "✘", "nein", "non", "nie"])
def test_a_word_or_sign_for_no_is_false(text: str) -> None:
    assert truth(f" {text} ") is False


def test_what_is_no_truth_value_is_neither() -> None:
    assert [truth(text) for text in ("", "2", "yes please", "none")] == [None] * 4


@pytest.mark.parametrize(
    ("sign", "currency"),
    [
        *(("€", "EUR"), ("$", "USD"), ("US$", "USD"), ("£", "GBP"), ("¥", "JPY"), ("zł", "PLN"), ("Kč", "CZK")),
        *(("₹", "INR"), ("Fr.", "CHF"), ("eur", "EUR"), ("USD", "USD"), ("GBP", "GBP"), ("CHF", "CHF"), ("PLN", "PLN")),
        *(("JPY", "JPY"), ("CZK", "CZK"), ("SEK", "SEK"), ("NOK", "NOK"), ("DKK", "DKK"), ("INR", "INR")),
    ],
)
def test_a_currency_is_read_before_and_behind_an_amount(sign: str, currency: str) -> None:
    expected = [Money(Decimal("1250.5"), currency)]
    assert [list(money(text)) for text in (f"{sign} 1250.5", f"1250.5{sign}")] == [expected, expected]


@pytest.mark.parametrize(
    ("text", "amount"),
    [("+5", "5"), ("-5", "-5"), ("−5", "-5"), ("(5)", "-5"), ("€ -5", "-5"), ("5e2", "500"), ("1’000’000", "1000000")],
)
def test_a_sign_brackets_and_an_exponent_belong_to_the_amount(text: str, amount: str) -> None:
    assert [reading.amount for reading in money(text)] == [Decimal(amount)]


@pytest.mark.parametrize(
    "text", ["(5", "5)", "€ 5 EUR", "5 pieces", "", "€", "5e123", "1,2,3", "12,34.5", "0,123,456.7"]
)
def test_what_nobody_writes_for_an_amount_is_none(text: str) -> None:
    assert money(text) == ()


@pytest.mark.parametrize(
    ("text", "amounts"),
    [
        ("1.234", ["1234", "1.234"]),
        ("1,234", ["1234", "1.234"]),
        ("1.234.567", ["1234567"]),
        ("1 234,5", ["1234.5"]),
        ("1٫5", ["1.5"]),
        ("1٬234", ["1234", "1.234"]),
        ("0.5", ["0.5"]),
        ("1.234 567", []),
    ],
)
def test_an_amount_has_every_reading_that_a_country_gives_it(text: str, amounts: list[str]) -> None:
    assert [reading.amount for reading in money(text)] == [Decimal(amount) for amount in amounts]


@pytest.mark.parametrize(
    ("text", "largest"),
    [
        ("between 5 and 70 EUR, not 8", "70"),
        ("No. 007", "7"),
        ("1 234 pieces", "1234"),
        ("1'234'5", "12345"),
        ("-9", "9"),
        ("3e2.", "300"),
        ("0", "0"),
    ],
)
def test_the_largest_number_of_a_text_is_found_wherever_it_stands(text: str, largest: str) -> None:
    assert largest_number(text) == Decimal(largest)
    assert largest_number("none at all") is None


@pytest.mark.parametrize("month", range(1, 13))
def test_every_month_is_known_by_its_name(month: int) -> None:
    day = date(2026, month, 3)
    for text in (
        f"{day:%B} 3rd, 2026",
        f"{day:%b}. 3 2026",
        f"3. {day:%b} 2026",
        f"3-{day:%b}-2026",
        f"3RD {day:%B}, 2026",
    ):
        assert dates(text) == (day,), text


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("2026-11-03", [(11, 3)]),
        ("2026/11/3", [(11, 3)]),
        ("2026.11.03", [(11, 3)]),
        ("2026-11-03T00:00:00.000Z", [(11, 3)]),
        ("2026-11-03T00:00", [(11, 3)]),
        ("2026-11-03T10:00", []),
        ("2026-11/03", []),
        ("03/04/2026", [(4, 3), (3, 4)]),
        ("03-04-2026", [(4, 3), (3, 4)]),
        ("03.04.2026", [(4, 3)]),
        ("04/04/2026", [(4, 4)]),
        ("31/04/2026", []),
        ("13/04/2026", [(4, 13)]),
        ("04/13/2026", [(4, 13)]),
        ("Februar 30, 2026", []),
        ("2026", []),
    ],
)
def test_a_date_in_figures_has_every_reading_that_is_a_day(text: str, days: list[tuple[int, int]]) -> None:
    assert dates(text) == tuple(date(2026, month, day) for month, day in days)
