"""The judge sees everything that can be wrong with the rows, and names it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import records
from evals.judge import WrongField, judge
from evals.records import Invoice
from infra.clock import SystemClock
from infra.ids import seeded_ids

Enter = Callable[..., None]


@pytest.fixture
def enter(database: Path) -> Enter:
    """Put rows into the application's own tables, past its forms."""

    def insert(*invoices: Invoice) -> None:
        columns = [column.name for column in fields(Invoice)]
        statement = f"INSERT INTO ledger_invoice ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        with closing(sqlite3.connect(database)) as connection, connection:
            for invoice in invoices:
                values = [getattr(invoice, column) for column in columns]
                connection.execute(statement, [v if isinstance(v, bool) else str(v) for v in values])

    return insert


def test_all_there_once_is_flawless(database: Path, enter: Enter, invoices: tuple[Invoice, ...]) -> None:
    enter(*invoices)
    verdict = judge(database, invoices)
    assert verdict.flawless
    assert verdict.present == tuple(invoice.number for invoice in invoices)


def test_a_missing_row_is_named(database: Path, enter: Enter, invoices: tuple[Invoice, ...]) -> None:
    enter(*invoices[1:])
    verdict = judge(database, invoices)
    assert verdict.missing == (invoices[0].number,)
    assert len(verdict.present) == 11
    assert not verdict.flawless


def test_every_surplus_row_is_counted(database: Path, enter: Enter, invoices: tuple[Invoice, ...]) -> None:
    enter(*invoices, invoices[4], invoices[4], invoices[9])
    verdict = judge(database, invoices)
    assert verdict.duplicates == {invoices[4].number: 2, invoices[9].number: 1}
    assert verdict.surplus == 3
    assert len(verdict.present) == 12
    assert not verdict.flawless


ALTERATIONS: dict[str, Callable[[Invoice], Invoice]] = {
    "supplier": lambda invoice: replace(invoice, supplier=invoice.supplier + " "),
    "email": lambda invoice: replace(invoice, email="x" + invoice.email),
    "issued": lambda invoice: replace(invoice, issued=invoice.issued + timedelta(days=1)),
    "category": lambda invoice: replace(invoice, category="other"),
    "amount": lambda invoice: replace(invoice, amount=invoice.amount + Decimal("0.01")),
    "currency": lambda invoice: replace(invoice, currency="XXX"),
    "paid": lambda invoice: replace(invoice, paid=not invoice.paid),
    "notes": lambda invoice: replace(invoice, notes=invoice.notes + "."),
}


@pytest.mark.parametrize("field", ALTERATIONS)
def test_one_altered_field_is_named_with_both_values(
    field: str, database: Path, enter: Enter, invoices: tuple[Invoice, ...]
) -> None:
    altered = ALTERATIONS[field](invoices[2])
    enter(*invoices[:2], altered, *invoices[3:])
    verdict = judge(database, invoices)
    (flaw,) = verdict.wrong
    assert (flaw.number, flaw.field) == (invoices[2].number, field)
    assert flaw.expected != flaw.found
    assert invoices[2].number not in verdict.present
    assert not verdict.flawless


def test_an_altered_number_is_one_missing_and_one_unexpected(
    database: Path, enter: Enter, invoices: tuple[Invoice, ...]
) -> None:
    enter(replace(invoices[0], number="INV-2026-99999X"), *invoices[1:])
    verdict = judge(database, invoices)
    assert verdict.missing == (invoices[0].number,)
    assert verdict.unexpected == ("INV-2026-99999X",)


def test_a_right_row_beside_a_wrong_one_is_present_and_a_duplicate_and_wrong(
    database: Path, enter: Enter, invoices: tuple[Invoice, ...]
) -> None:
    enter(*invoices, replace(invoices[0], currency="XXX"))
    verdict = judge(database, invoices)
    assert len(verdict.present) == 12
    assert verdict.duplicates == {invoices[0].number: 1}
    assert verdict.wrong == (WrongField(invoices[0].number, "currency", invoices[0].currency, "XXX"),)


def test_line_ends_as_browsers_send_them_are_no_difference(
    database: Path, enter: Enter, invoices: tuple[Invoice, ...]
) -> None:
    expected = replace(invoices[0], notes="one\ntwo")
    enter(replace(expected, notes="one\r\ntwo"))
    assert judge(database, [expected]).flawless


@given(surplus=st.lists(st.integers(0, 11), max_size=5), gone=st.sets(st.integers(0, 11)))
def test_any_mixture_of_missing_and_surplus_rows_is_told_apart(
    surplus: list[int], gone: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    invoices = records.make(seeded_ids(1, SystemClock()))
    rows = [i for i in range(12) if i not in gone] + surplus
    path = tmp_path_factory.mktemp("judge") / "db"
    columns = [column.name for column in fields(Invoice)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"CREATE TABLE ledger_invoice (id INTEGER PRIMARY KEY, {', '.join(columns)})")
        for row in rows:
            values = [str(getattr(invoices[row], column)) for column in columns]
            values[columns.index("paid")] = str(int(invoices[row].paid))
            connection.execute(f"INSERT INTO ledger_invoice VALUES (NULL, {', '.join('?' * len(values))})", values)
    verdict = judge(path, invoices)
    counts = [rows.count(i) for i in range(12)]
    assert verdict.missing == tuple(invoices[i].number for i in range(12) if counts[i] == 0)
    assert verdict.duplicates == {invoices[i].number: counts[i] - 1 for i in range(12) if counts[i] > 1}
    assert verdict.flawless == all(count == 1 for count in counts)


def test_a_database_that_is_not_there_is_an_error_and_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        judge(tmp_path / "none.sqlite3", [])
    assert list(tmp_path.iterdir()) == []
