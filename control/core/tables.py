"""Tables of a mission: CSV as spreadsheets write it, or a JSON array of objects. Pure.

Every error names the line, the column and what to do, as a violation of the field that the caller names.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from infra.errors import InvalidArgument, Violation

MAX_BYTES = 16 * 1024 * 1024
MAX_ROWS = 5_000
"""A plan holds every record, and whoever looks at the run is sent the whole plan."""
MAX_COLUMNS = 512
_MAX_CELL = 65_536
_MAX_REPORTED = 10
_DELIMITERS = ",;\t|"
_BLANK = f"{_DELIMITERS} \r\n"
_SNIFFED_ROWS = 20
_SIGNATURES = (
    (b"PK\x03\x04", "a workbook of a spreadsheet or another zip file"),
    (b"\xd0\xcf\x11\xe0", "an old workbook of a spreadsheet"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x1f\x8b", "a compressed file"),
)
_BOMS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True, slots=True)
class Table:
    """Text cells under named columns; `lines` says where each row begins in its file, for messages."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]

    def column(self, name: str) -> tuple[str, ...]:
        """The cells under a column."""
        index = self.columns.index(name)
        return tuple(row[index] for row in self.rows)

    def records(self) -> tuple[Mapping[str, str], ...]:
        """The rows by column name."""
        return tuple(dict(zip(self.columns, row, strict=True)) for row in self.rows)


@dataclass(frozen=True, slots=True)
class _Row:
    line: int
    cells: tuple[str, ...]


def parse_table(data: bytes, *, name: str = "", field: str = "rows") -> Table:
    """Read a table; `name` is the file's, `field` what violations are reported for.

    JSON when the name says so or the first character is a bracket, else CSV with the delimiter found by looking.
    Text is UTF-8, UTF-16 with its mark, or else Windows-1252. Raises InvalidArgument (reason BAD_TABLE).
    """
    if len(data) > MAX_BYTES:
        _refuse(field, f"the table has {len(data):,} bytes, at most {MAX_BYTES:,} are taken: split it")
    text = _decode(data, field)
    if not text.strip():
        _refuse(field, "the table is empty: give a header line and at least one row")
    is_json = name.lower().endswith(".json") or (not name and text.lstrip()[0] in "[{")
    return _from_json(text, field) if is_json else _from_csv(text, field)


def unique_key(table: Table, column: str, *, field: str = "key") -> None:
    """Refuse a column that is missing, has empty cells or names two rows alike."""
    if column not in table.columns:
        _refuse(field, f"the table has no column {column!r}; it has {', '.join(map(repr, table.columns))}")
    cells = [cell.strip() for cell in table.column(column)]
    empty = [line for line, cell in zip(table.lines, cells, strict=True) if not cell]
    if empty:
        _refuse(field, f"line {empty[0]} has no {column!r}: every record needs one to be found again")
    twice = [cell for cell, count in Counter(cells).items() if count > 1]
    if twice:
        where = [str(line) for line, cell in zip(table.lines, cells, strict=True) if cell == twice[0]]
        _refuse(field, f"{column} {twice[0]!r} stands in lines {' and '.join(where)}: name a column that is unique")


def _refuse(field: str, *problems: str) -> NoReturn:
    left_out = len(problems) - _MAX_REPORTED
    shown = [*problems[:_MAX_REPORTED], *([f"and {left_out} more of the kind"] if left_out > 0 else [])]
    raise InvalidArgument(*(Violation(field, problem) for problem in shown), reason="BAD_TABLE")


def _decode(data: bytes, field: str) -> str:
    kind = next((kind for mark, kind in _SIGNATURES if data.startswith(mark)), None)
    if kind:
        _refuse(field, f"this is {kind}, no text: export the table as CSV in UTF-8 and give that file")
    encoding = next((encoding for mark, encoding in _BOMS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            _refuse(field, f"byte {error.start} is not {encoding}: save the table as UTF-8")
        text = _decode_windows(data, field)
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        _refuse(field, f"line {line} holds a NUL byte: this is no text; save the table as CSV in UTF-8")
    return text


def _decode_windows(data: bytes, field: str) -> str:
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        _refuse(
            field,
            f"line {line}: byte {data[error.start]:#04x} is neither UTF-8 nor Windows-1252: save the table as CSV in"
            " UTF-8; a file that is no text cannot be read",
        )


def _from_csv(text: str, field: str) -> Table:
    delimiter = _delimiter(text)
    rows: list[_Row] = []
    try:
        for row in _rows(text, delimiter):
            rows.append(row)
            if len(rows) > MAX_ROWS + 1:
                _refuse(field, f"the table has more than {MAX_ROWS:,} rows: split it")
    except csv.Error as error:
        begun = rows[-1].line + 1 if rows else 1
        _refuse(field, f"line {begun} or below: {error}; look for a quote that is not closed or not doubled")
    if not rows:
        _refuse(field, "the table has only empty cells: give a header line and at least one row")
    header, *body = rows
    width = _used_width(header, body)
    columns = _header(header.cells[:width], field)
    if not body:
        _refuse(field, f"the table has a header ({', '.join(columns)}) and no rows: add the records below it")
    ragged = [problem for row in body if (problem := _ragged(row, columns))]
    if ragged:
        _refuse(field, *ragged)
    return Table(columns, tuple(row.cells[:width] for row in body), tuple(row.line for row in body))


def _rows(text: str, delimiter: str) -> Iterator[_Row]:
    """The rows that are not blank, each with the line that it begins in."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    before = 0
    for cells in reader:
        if any(cell.strip(_BLANK) for cell in cells):
            yield _Row(before + 1, tuple(cells))
        before = reader.line_num


def _delimiter(text: str) -> str:
    """The candidate under which the most of the first rows are as wide as the header; a comma when none is any good."""

    def fitness(delimiter: str) -> tuple[bool, int, int]:
        widths: list[int] = []
        try:
            for row in _rows(text, delimiter):
                widths.append(len(row.cells))
                if len(widths) > _SNIFFED_ROWS:
                    break
        except csv.Error:
            pass
        width = widths[0] if widths else 0
        return width > 1, sum(other == width for other in widths), width

    return max(_DELIMITERS, key=fitness)


def _used_width(header: _Row, body: Sequence[_Row]) -> int:
    """Spreadsheets export empty columns at the right edge: how many columns hold anything."""
    return max(
        (index + 1 for row in (header, *body) for index, cell in enumerate(row.cells) if cell.strip()), default=0
    )


def _header(cells: Sequence[str], field: str) -> tuple[str, ...]:
    columns = tuple(" ".join(cell.split()) for cell in cells)
    if len(columns) > MAX_COLUMNS:
        _refuse(field, f"the table has {len(columns)} columns, at most {MAX_COLUMNS} are taken")
    problems = [f"column {index} has no name in the header" for index, name in enumerate(columns, 1) if not name]
    first: dict[str, int] = {}
    for index, name in enumerate(columns, 1):
        earlier = first.setdefault(name.casefold(), index)
        if name and earlier != index:
            problems.append(f"columns {earlier} and {index} are both called {name!r}: rename one")
    if problems:
        _refuse(field, *problems)
    return columns


def _ragged(row: _Row, columns: Sequence[str]) -> str | None:
    wide, expected = len(row.cells), len(columns)
    if wide > expected and any(cell.strip() for cell in row.cells[expected:]):
        return f"line {row.line} has {wide} cells, the header has {expected}: quote cells that hold the delimiter"
    if wide < expected:
        return f"line {row.line} has {wide} cells, the header has {expected}: {columns[wide]!r} is missing"
    long = next((name for name, cell in zip(columns, row.cells, strict=False) if len(cell) > _MAX_CELL), None)
    return f"line {row.line}, column {long!r}: more than {_MAX_CELL:,} characters" if long else None


def _from_json(text: str, field: str) -> Table:
    try:
        document: object = json.loads(
            text, parse_float=str, parse_int=str, parse_constant=_no_constant, object_pairs_hook=_once
        )
    except (ValueError, RecursionError) as error:
        _refuse(field, f"this is not valid JSON: {error}")
    records = cast("list[object]", document) if isinstance(document, list) else None
    if not records:
        _refuse(field, 'JSON must be an array of objects, for instance [{"Name": "Ada"}], with at least one in it')
    if len(records) > MAX_ROWS:
        _refuse(field, f"the table has more than {MAX_ROWS:,} rows: split it")
    rows = [_record(index, record, field) for index, record in enumerate(records, 1)]
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    columns = _header(names, field)
    return Table(
        columns, tuple(tuple(row.get(name, "") for name in names) for row in rows), tuple(range(1, len(rows) + 1))
    )


def _record(index: int, record: object, field: str) -> dict[str, str]:
    if not isinstance(record, dict):
        _refuse(field, f"record {index} is not an object: write it as {{column: value}}")
    return {name: _scalar(index, name, value, field) for name, value in cast("dict[str, object]", record).items()}


def _scalar(index: int, name: str, value: object, field: str) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() if len(value) <= _MAX_CELL and "\0" not in value:
            return value
        case str():
            _refuse(field, f"record {index}, {name!r}: more than {_MAX_CELL:,} characters, or a NUL")
        case _:
            _refuse(
                field, f"record {index}, {name!r}: a cell is text, a number, true, false or null, not a list or object"
            )


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    record = dict(pairs)
    if len(record) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return record
