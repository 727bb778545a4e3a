"""Whether a list page of an application shows a record: once, and with the values that were entered."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from control.core.matching import header_matches, same_value
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.run.v1 import plan_pb2 as plan

_COUNTS_NONE = re.compile(r"(?<![\d.,:])0\s+[^\W\d_]{2,}")
"""An empty list that says so, in whatever language: "0 results", "0 invoices"."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list page shows of one record."""

    holds: plan.Holds.ValueType
    rows: int
    detail: str


def judge_listing(claim: plan.Listed, extracted: br.Extracted) -> Listing:
    """Counts the rows whose cells name the record and compares the cells whose header names an expected field."""
    if not 200 <= extracted.http_status < 400 and extracted.http_status:
        return Listing(plan.HOLDS_UNKNOWN, 0, f"{extracted.url} was answered with {extracted.http_status}")
    wanted = claim.count or 1
    found = [(header, row) for table in extracted.tables for header, row in _rows_with(table, claim.key)]
    if not found and (why := _proves_nothing(claim, extracted)):
        return Listing(plan.HOLDS_UNKNOWN, 0, why)
    if len(found) != wanted:
        return Listing(plan.HOLDS_NO, len(found), f"{extracted.url} shows {claim.key!r} {_times(len(found))}")
    wrong = [error for header, row in found for error in _differences(claim.cells, header, row)]
    if wrong:
        return Listing(plan.HOLDS_NO, len(found), f"{extracted.url} shows {claim.key!r} with {'; '.join(wrong)}")
    return Listing(plan.HOLDS_YES, len(found), f"{extracted.url} shows {claim.key!r} {_times(len(found))}, as entered")


def _proves_nothing(claim: plan.Listed, extracted: br.Extracted) -> str:
    """Why a page that does not show the record is no proof that the record is not there; empty when it is one."""
    if not extracted.http_status:
        return f"{claim.url} was not answered over HTTP"
    if extracted.truncated:
        return f"{extracted.url} is too long to be read to its end"
    asked, answered = urlsplit(claim.url), urlsplit(extracted.url)
    if extracted.url and (asked.netloc, asked.path.rstrip("/")) != (answered.netloc, answered.path.rstrip("/")):
        return f"{claim.url} led to {extracted.url}"
    if not any(_may_list(claim, table) for table in extracted.tables) and not _COUNTS_NONE.search(extracted.text):
        return f"{extracted.url or claim.url} shows neither the list nor that there is nothing in it"
    return ""


def _may_list(claim: plan.Listed, table: br.Table) -> bool:
    """Whether a table may be the list: none of its headings need be there, but if some are, one is of a known field."""
    header: Sequence[str] = next((row.cells for row in table.rows if row.header), ())
    known = [field.label for field in claim.cells]
    return not header or not known or any(header_matches(label, name) for label in known for name in header)


def _rows_with(table: br.Table, key: str) -> list[tuple[Sequence[str], Sequence[str]]]:
    header: Sequence[str] = next((row.cells for row in table.rows if row.header), ())
    return [(header, row.cells) for row in table.rows if not row.header and any(same_value(c, key) for c in row.cells)]


def _differences(expected: Sequence[br.FieldValue], header: Sequence[str], row: Sequence[str]) -> list[str]:
    """Cells under a matching header that show another value. A column that the page does not show proves nothing."""
    wrong: list[str] = []
    for field in expected:
        at = [i for i, name in enumerate(header) if i < len(row) and header_matches(field.label, name)]
        if len(at) == 1 and not same_value(row[at[0]], field.value):
            wrong.append(f"{header[at[0]]} {row[at[0]]!r} instead of {field.value!r}")
    return wrong


def _times(count: int) -> str:
    return {0: "nowhere", 1: "once"}.get(count, f"{count} times")
