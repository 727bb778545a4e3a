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
    with pytest.raises(InvalidArgument, match=said) as refused:
        match_fields(["Date"], [["x"]], fields, explicit=parse_mapping(mapping))
    assert refused.value.violations[0].field == "columns"


@pytest.mark.parametrize("text", ["Date", "=x", "Date=", "A=b; A=c"])
def test_a_mapping_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="column=form label") as refused:
        parse_mapping(text)
    assert refused.value.violations[0].field == "columns"


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


@pytest.mark.parametrize(
    ("token", "column"),
    [
        ("billing given-name", "First name"),
        ("family-name", "Last name"),
        ("tel", "Phone"),
        ("cc-number", "Card"),
        ("bday", "Birth date"),
        ("organization", "Company"),
        ("street-address", "Address"),
        ("address-line1", "Addr"),
        ("address-level2", "City"),
        ("address-level1", "State"),
        ("postal-code", "Postcode"),
        ("country-name", "Country"),
        ("transaction-amount", "Total"),
        ("transaction-currency", "Currency"),
        ("email", "E-mail"),
    ],
)
def test_autocomplete_tells_what_a_label_does_not(token: str, column: str) -> None:
    field = FormField(ref="1", label="??", type="text", autocomplete=token)
    assert _labels(match_fields([column], [["Ada"]], [field])) == {column: "??"}


def test_the_name_attribute_and_the_hint_tell_what_a_label_does_not() -> None:
    fields = [FormField(ref="1", label="??", field="supplier"), FormField(ref="2", label="!!", hint="Issue date")]
    matching = match_fields(["Vendor", "Issue date"], [["x", "y"]], fields)
    assert _labels(matching) == {"Vendor": "??", "Issue date": "!!"}
    assert [pair.why for pair in matching.pairs] == ["field name: the same in other words", "hint: the same name"]


def test_a_label_is_believed_before_a_name_attribute_and_that_before_a_hint() -> None:
    labelled = FormField(ref="1", label="Vendor")
    named = FormField(ref="2", label="??", field="vendor")
    hinted = FormField(ref="3", label="!!", hint="Vendor")
    scores = [match_fields(["Vendor"], [["x"]], [field]).pairs[0].score for field in (labelled, named, hinted)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 3
    assert all(0 < score <= 1 for score in scores)


@pytest.mark.parametrize("kind", ["hidden", "submit", "button", "image", "reset", "file"])
def test_disabled_and_unfillable_fields_are_never_filled(kind: str) -> None:
    fields = [FormField(label="Internal note", disabled=True), FormField(label="Save", type=kind)]
    assert match_fields(["Internal note", "Save"], [["a", "b"]], fields).pairs == ()


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        (FormField(type="date"), "2026-01-01", "soon"),
        (FormField(type="datetime-local"), "2026-01-01", "soon"),
        (FormField(type="email"), "a@b.example", "a at b"),
        (FormField(type="url"), "HTTPS://b.example/x", "b.example"),
        (FormField(type="tel"), "+41 (0)44 123", "none"),
        (FormField(type="number"), "12.50", "many"),
        (FormField(type="range"), "7", "many"),
        (FormField(type="checkbox"), "yes", "perhaps"),
        (FormField(options=["Travel", "Food"]), "travel", "Rent"),
    ],
)
def test_values_of_another_kind_keep_a_column_from_a_field_whose_name_is_only_alike(
    field: FormField, good: str, bad: str
) -> None:
    field.label = "Main thing"
    assert _labels(match_fields(["Thing"], [[good], [" "], [good]], [field])) == {"Thing": "Main thing"}
    assert match_fields(["Thing"], [[good], [bad]], [field]).unmatched_columns == ("Thing",)


def test_values_of_another_kind_do_not_keep_a_column_from_a_field_of_its_very_name() -> None:
    assert _labels(match_fields(["Due"], [["soon"]], [FormField(label="Due:", type="date")])) == {"Due": "Due:"}


def test_values_that_fit_make_a_weak_name_stronger_and_never_more_than_sure() -> None:
    plain, typed = FormField(ref="1", label="Main contact"), FormField(ref="2", label="Main contact", type="email")
    weak, strong = (match_fields(["Contact"], [["a@b.example"]], [field]).pairs[0].score for field in (plain, typed))
    assert weak < strong < 1
    exact = FormField(ref="3", label="Contact", type="email")
    assert match_fields(["Contact"], [["a@b.example"]], [exact]).pairs[0].score == 1.0


def test_what_the_mission_names_is_not_given_to_another() -> None:
    fields = [FormField(ref="1", label="Notes"), FormField(ref="2", label="Memo")]
    matching = match_fields(["Notes", "Memo"], [["a", "b"]], fields, explicit={"Notes": "Memo"})
    assert _labels(matching) == {"Notes": "Memo", "Memo": "Notes"}
    assert (matching.pairs[0].score, matching.pairs[0].why) == (1.0, "named by the mission")


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


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        ("postalCode", "Postal code:", 1.0),
        ("E-mail", "e mail", 1.0),
        ("E-Mail", "Email", 1.0),
        ("Post code", "POSTCODE", 1.0),
        ("User name", "username", 1.0),
        *((f"{idle} Colour", "Colour", 1.0) for idle in ["the", "a", "an", "of", "for", "your", "please", "enter"]),
        *((f"{idle} Colour", "Colour", 1.0) for idle in ["required", "optional", "der", "die", "das"]),
        ("The", "the", 1.0),
        ("Vendor", "Supplier", 0.95),
        ("Invoice number", "No. of invoice", 0.95),
        ("Number", "Invoice number", 0.65),
        ("Shipping address", "Billing address", 0.3667),
        ("Kommentierung", "Komentierung", 0.816),
        ("Colour", "Shape", 0.0),
        ("", "Colour", 0.0),
        ("Colour", "", 0.0),
    ],
)
def test_how_alike_names_are(one: str, other: str, score: float) -> None:
    assert likeness(one, other).score == score


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
