"""The uninvolved judge: opens the application's own database and compares it with what should be there.

It knows nothing of the mesh, asks neither it nor the application, and can write to neither.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path

from evals.records import Invoice

TABLE = "ledger_invoice"
COLUMNS = tuple(column.name for column in fields(Invoice))
QUERY = f"SELECT {', '.join(COLUMNS)} FROM {TABLE} ORDER BY id"  # noqa: S608  both are constants of this module
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class WrongField:
    """A stored row that says something else than the record it is for."""

    number: str
    field: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the database holds. Records are named by their numbers, in the order expected.

    present: there with every field right · missing: no row at all · duplicates: number to surplus rows ·
    wrong: one entry a differing field of a row · unexpected: rows of numbers that nobody asked for.
    """

    present: tuple[str, ...]
    missing: tuple[str, ...]
    duplicates: Mapping[str, int]
    wrong: tuple[WrongField, ...]
    unexpected: tuple[str, ...]

    @property
    def surplus(self) -> int:
        """Rows too many, over all records."""
        return sum(self.duplicates.values())

    @property
    def flawless(self) -> bool:
        """Every record there once, every field right, nothing else."""
        return not (self.missing or self.duplicates or self.wrong or self.unexpected)


def judge(database: Path, expected: Sequence[Invoice]) -> Judgement:
    """Compare the file with the records; raises sqlite3.Error when it cannot be read."""
    stored: defaultdict[str, list[Mapping[str, str]]] = defaultdict(list)
    for row in _rows(database):
        stored[row["number"]].append(row)
    wanted = {invoice.number: _as_text(invoice) for invoice in expected}
    return Judgement(
        present=tuple(number for number, want in wanted.items() if want in stored[number]),
        missing=tuple(number for number in wanted if not stored[number]),
        duplicates={number: len(stored[number]) - 1 for number in wanted if len(stored[number]) > 1},
        wrong=tuple(flaw for number, want in wanted.items() for row in stored[number] for flaw in _flaws(want, row)),
        unexpected=tuple(number for number, rows in stored.items() if number not in wanted for _ in rows),
    )


def _rows(database: Path) -> list[Mapping[str, str]]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = connection.execute(QUERY).fetchall()
    return [_normal({name: str(value) for name, value in zip(COLUMNS, row, strict=True)}) for row in found]


def _as_text(invoice: Invoice) -> Mapping[str, str]:
    paid = str(int(invoice.paid))
    return _normal({name: str(getattr(invoice, name)) for name in COLUMNS} | {"paid": paid})


def _normal(row: dict[str, str]) -> Mapping[str, str]:
    """SQLite keeps decimals as numbers, and HTML forms send line ends as CR LF: neither is a difference."""
    return row | {
        "amount": str(Decimal(row["amount"]).quantize(CENT)),
        "notes": row["notes"].replace("\r\n", "\n"),
    }


def _flaws(want: Mapping[str, str], row: Mapping[str, str]) -> list[WrongField]:
    return [WrongField(want["number"], name, want[name], row[name]) for name in COLUMNS if want[name] != row[name]]
