"""The records of a proof are new, varied and known to need one approval."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.matching import match_fields
from evals import records
from evals.sites import ledger
from evals.sites.ledger.clerk import clerk
from infra.clock import SystemClock
from infra.errors import InvalidArgument
from infra.ids import seeded_ids
from skyagent.execution.v1.browser_pb2 import FormField

SELECT = re.compile(r'<select name="(\w+)"(.*?)</select>', re.DOTALL)


@given(st.integers())
def test_exactly_one_of_twelve_is_above_the_limit(seed: int) -> None:
    amounts = [invoice.amount for invoice in records.make(seeded_ids(seed, SystemClock()))]
    assert len(amounts) == 12
    assert sum(amount > records.LIMIT for amount in amounts) == 1


@given(st.integers())
def test_no_number_is_part_of_another(seed: int) -> None:
    numbers = [invoice.number for invoice in records.make(seeded_ids(seed, SystemClock()))]
    assert [(a, b) for a in numbers for b in numbers if a is not b and a in b] == []


def test_the_same_seed_gives_the_same_records_and_another_seed_none_of_them() -> None:
    first, again, other = (records.make(seeded_ids(seed, SystemClock())) for seed in (1, 1, 2))
    assert first == again
    assert not {invoice.number for invoice in first} & {invoice.number for invoice in other}


@given(st.integers())
def test_names_beyond_ascii_are_always_among_them(seed: int) -> None:
    assert any(not invoice.supplier.isascii() for invoice in records.make(seeded_ids(seed, SystemClock())))


def test_more_records_than_suppliers_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        records.make(seeded_ids(1, SystemClock()), count=len(records.SUPPLIERS) + 1)


@given(seed=st.integers())
def test_the_file_reads_back_as_written(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("csv") / "invoices.csv"
    invoices = records.make(seeded_ids(seed, SystemClock()))
    records.write_csv(path, invoices)
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [invoice.cells() for invoice in invoices]


def test_headings_are_a_persons_words_and_the_category_is_its_label(tmp_path: Path) -> None:
    cells = records.make(seeded_ids(3, SystemClock()))[0].cells()
    assert list(cells) == [
        *("Invoice no.", "Vendor", "E-mail", "Date", "Category", "Total", "Currency", "Paid?", "Remarks"),
    ]
    assert cells["Category"] in records.CATEGORIES.values()
    assert cells["Paid?"] in ("yes", "no")


async def test_every_heading_finds_its_field_of_the_real_form_without_a_model(site: ledger.Ledger) -> None:
    async with clerk(site.url, site.account) as worker:
        page = (await worker.get(ledger.FORM_PATH)).html
    labels = dict(re.findall(r'<label[^>]* for="id_(\w+)"[^>]*>([^<]+)</label>', page))
    options = {name: re.findall(r"<option[^>]*>([^<]+)<", body) for name, body in SELECT.findall(page)}
    fields = [
        FormField(ref=name, label=label, field=name, options=options.get(name, ())) for name, label in labels.items()
    ]
    invoices = records.make(seeded_ids(1, SystemClock()))
    rows = [list(invoice.cells().values()) for invoice in invoices]
    matching = match_fields(list(records.HEADINGS.values()), rows, fields)
    assert {pair.field.field: pair.column for pair in matching.pairs} == records.HEADINGS
    assert matching.problems() == ()
