from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.matching import (
    Matching,
    Pair,
    header_matches,
    heaviest,
    match_fields,
    match_header,
    parse_mapping,
)
from control.core.naming import likeness
from infra.errors import InvalidArgument
from skyagent.execution.v1.browser_pb2 import FormField

# A form as Django's admin draws it: labels end in a colon, dates are plain text inputs.
ADMIN = (
    FormField(ref="1", label="Invoice number:", field="number", type="text", required=True),
    FormField(ref="2", label="Supplier:", field="supplier", type="text", required=True),
    FormField(ref="3", label="Contact email:", field="email", type="email", required=True),
    FormField(ref="4", label="Issue date:", field="issued", type="text", required=True),
    FormField(
        ref="5", label="Category:", field="category", options=["---------", "Travel", "Consulting"], required=True
    ),
    FormField(ref="6", label="Amount:", field="amount", type="number", required=True),
    FormField(ref="7", label="Currency:", field="currency", options=["EUR", "USD"], value="EUR", required=True),
    FormField(ref="8", label="Paid", field="paid", type="checkbox"),
    FormField(ref="9", label="Notes:", field="notes", type="textarea"),
    FormField(ref="10", label="Search", field="q", type="search"),
    FormField(ref="11", label="Save", field="_save", type="submit"),
    FormField(ref="12", label="Internal note", field="internal", type="text", disabled=True),
)
COLUMNS = ("Invoice no.", "Vendor", "E-mail", "Date", "Category", "Total", "Currency", "Paid?", "Remarks")
ROWS = (
    ("INV-1", "Müller", "a@b.example", "2026-11-03", "Travel", "12500.00", "EUR", "yes", ""),
    ("INV-2", "O'Neill", "c@d.example", "2026-10-07", "Consulting", "99.00", "USD", "no", "late"),
)
TEXT = st.text(alphabet="abcdef _-:", max_size=12)


def _labels(matching: Matching) -> dict[str, str]:
    return {pair.column: pair.field.label for pair in matching.pairs}


def test_a_persons_headings_find_the_fields_of_an_admin_form() -> None:
    matching = match_fields(COLUMNS, ROWS, ADMIN)
    assert _labels(matching) == {
        "Invoice no.": "Invoice number:",
        "Vendor": "Supplier:",
        "E-mail": "Contact email:",
        "Date": "Issue date:",
        "Category": "Category:",
        "Total": "Amount:",
        "Currency": "Currency:",
        "Paid?": "Paid",
        "Remarks": "Notes:",
    }
    assert matching.problems() == ()


@given(st.permutations(range(len(COLUMNS))), st.permutations(ADMIN))
def test_the_order_of_columns_and_fields_changes_nothing(order: list[int], fields: list[FormField]) -> None:
    columns = [COLUMNS[index] for index in order]
    rows = [[row[index] for index in order] for row in ROWS]
    assert _labels(match_fields(columns, rows, fields)) == _labels(match_fields(COLUMNS, ROWS, ADMIN))


def test_two_fields_that_fit_equally_are_a_question_not_a_guess() -> None:
    fields = [FormField(ref="1", label="Issue date"), FormField(ref="2", label="Due date")]
    matching = match_fields(["Date"], [["2026-01-01"]], fields)
    assert matching.pairs == ()
    assert matching.unmatched_columns == ("Date",)
    assert matching.problems() == (
        "'Date' and 'Due date', 'Issue date' fit equally well: say columns=\"Date=Due date\"",
    )


def test_a_second_column_settles_what_alone_would_be_a_question() -> None:
    fields = [FormField(ref="1", label="Issue date"), FormField(ref="2", label="Due date")]
    matching = match_fields(["Date", "Due"], [["2026-01-01", "2026-02-01"]], fields)
    assert _labels(matching) == {"Date": "Issue date", "Due": "Due date"}


def test_two_columns_for_one_field_are_a_question() -> None:
    matching = match_fields(["Remarks", "Comment"], [["a", "b"]], [FormField(ref="1", label="Notes")])
    assert matching.ambiguities[0].columns == ("Comment", "Remarks")
    assert len(matching.problems()) == 1


def test_what_the_mission_names_is_obeyed() -> None:
    fields = [FormField(ref="1", label="Issue date:"), FormField(ref="2", label="Due date:")]
    matching = match_fields(["Date"], [["x"]], fields, explicit=parse_mapping("date = due DATE"))
    assert _labels(matching) == {"Date": "Due date:"}


@pytest.mark.parametrize(
    ("mapping", "said"),
    [("Day=Issue date", "no column 'Day'"), ("Date=Nope", "no field 'Nope'"), ("Date=Same", "2 fields 'Same'")],
)
def test_a_mapping_that_names_what_is_not_there_lists_what_is(mapping: str, said: str) -> None:
    fields = [
        FormField(ref="1", label="Issue date"),
        FormField(ref="2", label="Same"),
        FormField(ref="3", label="Same"),
    ]
    with pytest.raises(InvalidArgument, match=said):
        match_fields(["Date"], [["x"]], fields, explicit=parse_mapping(mapping))


@pytest.mark.parametrize("text", ["Date", "=x", "Date=", "A=b; A=c"])
def test_a_mapping_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="column=form label"):
        parse_mapping(text)


def test_a_required_field_that_no_column_fits_is_named() -> None:
    matching = match_fields(["Vendor"], [["x"]], ADMIN[:2])
    assert [field.label for field in matching.unfilled_required] == ["Invoice number:"]
    assert matching.problems() == ("the form requires 'Invoice number' and no column fits it",)


def test_a_required_field_that_has_a_value_already_needs_no_column() -> None:
    assert match_fields(["Vendor"], [["x"]], [ADMIN[1], ADMIN[6]]).problems() == ()


def test_a_column_that_fits_nothing_is_named() -> None:
    assert match_fields(["Shoe size"], [["43"]], ADMIN[:1]).unmatched_columns == ("Shoe size",)


def test_values_that_a_field_cannot_take_keep_a_weak_name_away() -> None:
    date = FormField(ref="1", label="Issue date", type="date")
    assert match_fields(["Date"], [["soon"]], [date]).pairs == ()


def test_values_find_their_field_where_names_say_nothing() -> None:
    fields = [FormField(ref="1", label="Reach us at", type="email"), FormField(ref="2", label="Subject", type="text")]
    assert _labels(match_fields(["Contact"], [["a@b.example"]], fields)) == {"Contact": "Reach us at"}


def test_autocomplete_tells_what_a_label_does_not() -> None:
    field = FormField(ref="1", label="??", type="text", autocomplete="billing given-name")
    assert _labels(match_fields(["First name"], [["Ada"]], [field])) == {"First name": "??"}


def test_disabled_and_unfillable_fields_are_never_filled() -> None:
    assert match_fields(["Internal note", "Save"], [["a", "b"]], ADMIN[10:]).pairs == ()


@given(st.lists(TEXT, max_size=5, unique=True), st.lists(TEXT, max_size=5))
def test_no_column_and_no_field_is_used_twice(columns: list[str], labels: list[str]) -> None:
    fields = [FormField(ref=str(index), label=label) for index, label in enumerate(labels)]
    matching = match_fields(columns, [], fields)
    assert len({pair.column for pair in matching.pairs}) == len(matching.pairs)
    assert len({pair.field.ref for pair in matching.pairs}) == len(matching.pairs)
    assert set(matching.unmatched_columns) | {pair.column for pair in matching.pairs} == set(columns)


@given(st.lists(st.lists(st.integers(0, 9), min_size=4, max_size=4), min_size=1, max_size=4))
def test_the_assignment_is_the_heaviest_of_all(weights: list[list[int]]) -> None:
    fields = [FormField(ref=str(index)) for index in range(4)]
    pairs = [
        Pair(str(row), fields[column], weight / 10, "")
        for row, line in enumerate(weights)
        for column, weight in enumerate(line)
        if weight
    ]
    best = max(
        sum(weights[row][column] for row, column in enumerate(way)) for way in permutations(range(4), len(weights))
    )
    chosen = heaviest(pairs)
    assert round(10 * sum(pair.score for pair in chosen)) == best
    assert len({pair.field.ref for pair in chosen}) == len({pair.column for pair in chosen}) == len(chosen)


@given(TEXT, TEXT)
def test_likeness_has_no_direction_and_stays_in_its_range(one: str, other: str) -> None:
    assert likeness(one, other).score == likeness(other, one).score
    assert 0 <= likeness(one, other).score <= 1


@pytest.mark.parametrize(
    ("label", "header"),
    [("Invoice no.", "NUMBER"), ("Vendor", "SUPPLIER"), ("Date", "ISSUE DATE"), ("Total", "AMOUNT"), ("Paid?", "PAID")],
)
def test_a_list_that_uses_other_words_still_shows_the_column(label: str, header: str) -> None:
    assert header_matches(label, header)


@pytest.mark.parametrize(
    ("label", "header"), [("Invoice no.", "DATE"), ("First name", "LAST NAME"), ("Vendor", "AMOUNT"), ("Vendor", "")]
)
def test_a_heading_for_something_else_does_not(label: str, header: str) -> None:
    assert not header_matches(label, header)


def test_the_nearest_heading_shows_a_label_unless_two_are_as_near() -> None:
    assert match_header("Date", ["NUMBER", "ISSUE DATE", "DATE"]) == 2
    assert match_header("Date", ["ISSUE DATE", "DUE DATE"]) is None
    assert match_header("Date", ["AMOUNT"]) is None
