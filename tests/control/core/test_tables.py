import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.tables import MAX_BYTES, MAX_ROWS, parse_table, unique_key
from infra.errors import InvalidArgument

cells = st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), max_size=12)


def _csv(rows: list[list[str]], delimiter: str) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


def _problem(data: bytes, name: str = "rows.csv") -> str:
    with pytest.raises(InvalidArgument) as caught:
        parse_table(data, name=name)
    assert caught.value.reason == "BAD_TABLE"
    assert all(violation.field == "rows" for violation in caught.value.violations)
    return "; ".join(violation.description for violation in caught.value.violations)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), min_size=1, max_size=6), st.sampled_from(",;\t|"))
def test_what_a_spreadsheet_wrote_is_read_as_it_was(rows: list[list[str]], delimiter: str) -> None:
    rows = [["A name", *row] for row in rows]
    table = parse_table(_csv([["Name", "B", "C"], *rows], delimiter), name="rows.csv")
    width = len(table.columns)
    assert [list(row) for row in table.rows] == [[cell.lstrip(" ") for cell in row[:width]] for row in rows]


@given(st.lists(st.fixed_dictionaries({"a": cells, "b": st.booleans(), "c": st.none()}), min_size=1, max_size=5))
def test_a_json_array_is_a_table(records: list[dict[str, str | bool | None]]) -> None:
    table = parse_table(json.dumps(records).encode(), name="rows.json")
    assert set(table.columns) == {"a", "b", "c"}
    assert table.column("a") == tuple(record["a"] for record in records)
    assert set(table.column("b")) <= {"true", "false"}


@given(st.binary(max_size=300))
def test_any_bytes_give_a_table_or_a_precise_refusal(data: bytes) -> None:
    try:
        table = parse_table(data, name="rows.csv")
    except InvalidArgument:
        return
    assert table.rows
    assert all(len(row) == len(table.columns) for row in table.rows)


def test_numbers_in_json_keep_the_text_that_was_written() -> None:
    assert parse_table(b'[{"n": 10.50}, {"n": 9007199254740993}]').column("n") == ("10.50", "9007199254740993")


def test_lines_are_counted_through_cells_that_hold_line_breaks() -> None:
    table = parse_table(b'A,B\n"one\ntwo",x\n\nthree,y\n', name="rows.csv")
    assert table.lines == (2, 5)


def test_empty_columns_and_rows_at_the_edge_are_left_out() -> None:
    table = parse_table(b"A,B,,\n1,2,,\n,,,\n", name="rows.csv")
    assert (table.columns, table.rows) == (("A", "B"), (("1", "2"),))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_the_encodings_of_spreadsheets_are_understood(encoding: str) -> None:
    assert parse_table("Name,City\nJürgen,Køln\n".encode(encoding)).rows == (("Jürgen", "Køln"),)


def test_a_ragged_row_is_named_by_its_line_and_the_missing_column() -> None:
    assert _problem(b"A,B,C\n1,2,3\n4,5\n") == "line 3 has 2 cells, the header has 3: 'C' is missing"


def test_every_ragged_row_is_told_at_once_up_to_a_bound() -> None:
    problem = _problem(b"A,B\n" + b"1\n" * 40)
    assert "line 2 has" in problem
    assert "and 30 more of the kind" in problem
    assert "more of the kind" not in _problem(b"A,B\n" + b"1\n" * 10)


def test_a_header_of_signs_is_no_json() -> None:
    assert parse_table(b"?,}\n1,2\n").columns == ("?", "}")


def test_a_row_with_too_many_cells_says_to_quote() -> None:
    assert "line 2 has 3 cells, the header has 2: quote" in _problem(b"A,B\n1,2,50\n1,2\n1,3\n")


def test_headers_must_be_there_and_differ() -> None:
    problem = _problem(b"A,,a\n1,2,3\n")
    assert "column 2 has no name" in problem
    assert "columns 1 and 3 are both called 'a'" in problem


def test_an_open_quote_names_the_line_it_may_stand_in() -> None:
    assert "line 3 or below" in _problem(b'A,B\n1,2\n"3,4\n5,6\n')


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b",,\n,,\n", "only empty cells"),
        (b"A,B\n", "no rows"),
        (b"A,B\n1,\x002\n", "line 2 holds a NUL byte"),
        ("A,B\n1,2\n".encode("utf-16-le"), "NUL"),
        (b"A,B\n1,\x81\n", "line 2: byte 0x81"),
        (b"x" * (MAX_BYTES + 1), "split it"),
        (b"A\n" + b"1\n" * (MAX_ROWS + 1), "more than 5,000 rows: split it"),
        (b"\x89PNG\r\n\x1a\n\x9d", "this is a picture, no text: export the table as CSV in UTF-8"),
        (b"PK\x03\x04\x14", "this is a workbook of a spreadsheet"),
    ],
)
def test_a_file_that_is_no_table_is_refused_with_the_reason(data: bytes, said: str) -> None:
    assert said in _problem(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{}", "array of objects"),
        (b"[]", "at least one"),
        (b"[1]", "record 1 is not an object"),
        (b'[{"a": [1]}]', "record 1, 'a'"),
        (b'[{"a": NaN}]', "NaN"),
        (b'[{"a": 1, "a": 2}]', "stands twice"),
        (b"[{", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_json_that_is_no_table_is_refused_with_the_reason(data: bytes, said: str) -> None:
    assert said in _problem(data, "rows.json")


def test_a_key_must_be_there_filled_and_unique() -> None:
    table = parse_table(b"Id,Name\n1,a\n2,b\n1,\n")
    for column, said in (("Id", "lines 2 and 4"), ("Name", "line 4 has no 'Name'"), ("No", "no column 'No'")):
        with pytest.raises(InvalidArgument, match=said) as refused:
            unique_key(table, column)
        assert refused.value.violations[0].field == "key"
