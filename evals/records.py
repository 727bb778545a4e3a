"""The invoices of one proof: new values on every run, the same for the same source of randomness."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from infra.errors import InvalidArgument, Violation
from infra.ids import Ids

T = TypeVar("T")

LIMIT = Decimal("10000.00")
"""Above it a person is asked; exactly one record of a set is."""
COUNT = 12
FIRST_DAY, DAYS = date(2026, 1, 5), 300

# A person's headings, not the form's labels: matching them is part of the work.
HEADINGS: Mapping[str, str] = MappingProxyType(
    {
        "number": "Invoice no.",
        "supplier": "Vendor",
        "email": "E-mail",
        "issued": "Date",
        "category": "Category",
        "amount": "Total",
        "currency": "Currency",
        "paid": "Paid?",
        "notes": "Remarks",
    }
)
SUPPLIERS = (
    ("Müller & Söhne Werkzeugbau GmbH", "rechnung@mueller-werkzeugbau.example"),
    ("Łódzkie Zakłady Papieru S.A.", "faktury@lzp.example"),
    ("Crème de la Crème Traiteur SARL", "compta@creme-traiteur.example"),
    ("Bjørnstad Elektro AS", "faktura@bjornstad.example"),
    ("O'Neill & Daughters Ltd", "accounts@oneill-daughters.example"),
    ("Ibérica de Señales S.L.", "facturas@iberica-senales.example"),
    ("Öresund Städ AB", "ekonomi@oresund-stad.example"),
    ("Çelik Lojistik A.Ş.", "muhasebe@celik-lojistik.example"),
    ("Αθηναϊκή Ναυτιλιακή Α.Ε.", "invoices@athens-shipping.example"),
    ("Дунав Софтуер ООД", "faktura@dunav-software.example"),
    ("თბილისის ჩაი შპს", "invoices@tbilisi-tea.example"),
    ("Northwind Office Supply Co.", "billing@northwind-office.example"),
    ("Žižkov Print s.r.o.", "fakturace@zizkov-print.example"),
    ("Sociedade do Café Lda.", "contas@cafe-lda.example"),
    ("Kowalczyk Consulting", "biuro@kowalczyk.example"),
    ("Zürcher Wasserwerke AG", "debitoren@wasserwerke-zh.example"),
)
CATEGORIES: Mapping[str, str] = MappingProxyType(
    {
        "office": "Office supplies",
        "travel": "Travel and lodging",
        "software": "Software and licences",
        "equipment": "Machines and equipment",
        "consulting": "Consulting",
        "utilities": "Energy and water",
    }
)
CURRENCIES = ("EUR", "EUR", "EUR", "USD", "GBP", "CHF", "PLN")
NOTES = (
    "",
    "",
    "Ordered by phone; delivery note attached.",
    'Second reminder, marked "urgent".',
    "Cost centre 4711, 50% / 50%",
    "Rabatt 3 % bei Zahlung in 10 Tagen – geprüft",
    "Check <b>VAT</b> & freight; see PO #88123",
    "Line 1: material\nLine 2: labour",
)


@dataclass(frozen=True, slots=True)
class Invoice:
    """One record as it shall stand in the application; `category` is the code stored, a person sees its label."""

    number: str
    supplier: str
    email: str
    issued: date
    category: str
    amount: Decimal
    currency: str
    paid: bool
    notes: str

    def cells(self) -> dict[str, str]:
        """The record as a row of the CSV, under its headings."""
        shown = {
            "number": self.number,
            "supplier": self.supplier,
            "email": self.email,
            "issued": self.issued.isoformat(),
            "category": CATEGORIES[self.category],
            "amount": str(self.amount),
            "currency": self.currency,
            "paid": "yes" if self.paid else "no",
            "notes": self.notes,
        }
        return {heading: shown[name] for name, heading in HEADINGS.items()}


def make(ids: Ids, count: int = COUNT) -> tuple[Invoice, ...]:
    """So many invoices, all of different suppliers and numbers, exactly one of them above LIMIT and none near it.

    Raises InvalidArgument for more than there are suppliers.
    """
    if not 0 < count <= len(SUPPLIERS):
        raise InvalidArgument(Violation("count", f"{count} is not from 1 to {len(SUPPLIERS)}, the suppliers there are"))
    suppliers = _some(ids, SUPPLIERS, count)
    numbers = _some(ids, range(10_000, 100_000), count)
    above = _below(ids, count)
    return tuple(
        _invoice(ids, number, supplier, _amount(ids, above=index == above))
        for index, (number, supplier) in enumerate(zip(numbers, suppliers, strict=True))
    )


def write_csv(path: Path, invoices: Sequence[Invoice]) -> None:
    """Write them as a person's spreadsheet would: UTF-8, a line of headings, quotes where needed (RFC 4180)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(HEADINGS.values()))
        writer.writeheader()
        writer.writerows(invoice.cells() for invoice in invoices)


def _invoice(ids: Ids, number: int, supplier: tuple[str, str], amount: Decimal) -> Invoice:
    issued = FIRST_DAY + timedelta(days=_below(ids, DAYS))
    name, email = supplier
    return Invoice(
        number=f"INV-{issued.year}-{number}",
        supplier=name,
        email=email,
        issued=issued,
        category=_one(ids, list(CATEGORIES)),
        amount=amount,
        currency=_one(ids, CURRENCIES),
        paid=ids.fraction() < 0.5,
        notes=_one(ids, NOTES),
    )


def _amount(ids: Ids, *, above: bool) -> Decimal:
    cents = 1_200_000 + _below(ids, 3_700_000) if above else 1_990 + _below(ids, 888_010)
    return Decimal(cents).scaleb(-2)


def _below(ids: Ids, end: int) -> int:
    return int(ids.fraction() * end)


def _one(ids: Ids, choices: Sequence[T]) -> T:
    return choices[_below(ids, len(choices))]


def _some(ids: Ids, choices: Sequence[T], count: int) -> list[T]:
    """So many different ones, in no order."""
    left = list(choices)
    return [left.pop(_below(ids, len(left))) for _ in range(count)]
