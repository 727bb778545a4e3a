from __future__ import annotations

import pytest

from control.core.listing import judge_listing
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.run.v1 import plan_pb2 as plan

URL = "http://app/invoices/?q=A-1"
HEADER = ("Number", "Vendor", "Total")
YES, NO, UNKNOWN = plan.HOLDS_YES, plan.HOLDS_NO, plan.HOLDS_UNKNOWN


def _page(*rows: tuple[str, ...], url: str = URL, status: int = 200, truncated: bool = False) -> br.Extracted:
    table = br.Table(rows=[br.TableRow(cells=HEADER, header=True), *(br.TableRow(cells=row) for row in rows)])
    return br.Extracted(url=url, http_status=status, tables=[table], truncated=truncated)


def _claim(count: int = 0, **cells: str) -> plan.Listed:
    values = [br.FieldValue(label=label, value=value) for label, value in cells.items()]
    return plan.Listed(url=URL, key="A-1", cells=values, count=count)


def test_one_row_with_the_entered_values_holds() -> None:
    found = judge_listing(_claim(Vendor="Acme"), _page(("A-1", "Acme", "3")))
    assert (found.holds, found.rows, found.detail) == (YES, 1, f"{URL} shows 'A-1' once, as entered")


def test_no_row_is_a_no_with_nothing_there() -> None:
    found = judge_listing(_claim(), _page(("A-2", "Acme", "3")))
    assert (found.holds, found.rows, found.detail) == (NO, 0, f"{URL} shows 'A-1' nowhere")


def test_two_rows_are_a_no_with_two_there() -> None:
    found = judge_listing(_claim(), _page(("A-1", "x", "3"), ("A-1", "y", "3")))
    assert (found.holds, found.rows, found.detail) == (NO, 2, f"{URL} shows 'A-1' 2 times")


def test_so_many_rows_as_wanted_hold() -> None:
    assert judge_listing(_claim(2), _page(("A-1", "x", "3"), ("A-1", "y", "3"))).holds == YES


def test_a_cell_that_shows_another_value_is_a_no_and_is_named() -> None:
    found = judge_listing(_claim(Vendor="Acme", Total="4"), _page(("A-1", "Other", "3")))
    assert (found.holds, found.rows) == (NO, 1)
    assert found.detail == f"{URL} shows 'A-1' with Vendor 'Other' instead of 'Acme'; Total '3' instead of '4'"


def test_a_column_that_the_page_does_not_show_proves_nothing() -> None:
    assert judge_listing(_claim(Colour="red"), _page(("A-1", "Acme", "3"))).holds == YES


def test_a_column_that_the_page_has_twice_proves_nothing() -> None:
    rows = [br.TableRow(cells=["Number", "Total", "Total"], header=True), br.TableRow(cells=["A-1", "3", "5"])]
    page = br.Extracted(url=URL, http_status=200, tables=[br.Table(rows=rows)])
    assert judge_listing(_claim(Total="4"), page).holds == YES


def test_a_short_row_is_compared_as_far_as_it_goes() -> None:
    assert judge_listing(_claim(Total="4"), _page(("A-1",))).holds == YES


def test_the_header_is_no_record() -> None:
    claim = plan.Listed(url=URL, key="Number")
    assert judge_listing(claim, _page(("A-1", "Acme", "3"))).rows == 0


def test_a_table_without_header_is_searched_as_well() -> None:
    page = br.Extracted(url=URL, http_status=200, tables=[br.Table(rows=[br.TableRow(cells=["x", "A-1"])])])
    assert judge_listing(_claim(Vendor="Acme"), page).holds == YES


@pytest.mark.parametrize(("status", "holds"), [(199, UNKNOWN), (200, NO), (399, NO), (400, UNKNOWN), (500, UNKNOWN)])
def test_an_answer_that_is_an_error_proves_nothing(status: int, holds: plan.Holds.ValueType) -> None:
    found = judge_listing(_claim(), _page(status=status))
    assert found.holds == holds
    assert found.rows == 0
    if holds == UNKNOWN:
        assert found.detail == f"{URL} was answered with {status}"


def test_a_page_that_did_not_come_over_http_does_not_prove_that_nothing_is_there() -> None:
    found = judge_listing(_claim(), _page(status=0))
    assert (found.holds, found.detail) == (UNKNOWN, f"{URL} was not answered over HTTP")
    assert judge_listing(_claim(), _page(("A-1", "x", "3"), status=0)).holds == YES


def test_a_page_that_was_cut_does_not_prove_that_nothing_is_there() -> None:
    found = judge_listing(_claim(), _page(truncated=True))
    assert (found.holds, found.detail) == (UNKNOWN, f"{URL} is too long to be read to its end")
    assert judge_listing(_claim(), _page(("A-1", "x", "3"), truncated=True)).holds == YES


@pytest.mark.parametrize(
    ("answered", "holds"),
    [
        ("http://app/login/?next=/invoices/", UNKNOWN),
        ("http://other/invoices/?q=A-1", UNKNOWN),
        ("http://app/invoices?q=A-1", NO),
        ("http://app/invoices/?page=1", NO),
        ("", NO),
    ],
)
def test_another_page_than_the_one_asked_does_not_prove_that_nothing_is_there(
    answered: str, holds: plan.Holds.ValueType
) -> None:
    found = judge_listing(_claim(), _page(url=answered))
    assert found.holds == holds
    if holds == UNKNOWN:
        assert found.detail == f"{URL} led to {answered}"


NAVIGATION = br.Table(
    rows=[br.TableRow(cells=["Model name", "Add link"], header=True), br.TableRow(cells=["Invoices"])]
)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("We are down for maintenance. Try again at 10:00 or call 030 123.", UNKNOWN),
        ("", UNKNOWN),
        ("Select invoice to change Search 0 results (12 total) 0 invoices", NO),
        ("0 Rechnungen", NO),
        ("10 invoices", UNKNOWN),
        ("Total 12.0 euros", UNKNOWN),
    ],
)
@pytest.mark.parametrize("tables", [[], [NAVIGATION]], ids=["no table", "a table of something else"])
def test_a_page_without_the_list_proves_absence_only_when_it_says_that_there_is_nothing(
    text: str, holds: plan.Holds.ValueType, tables: list[br.Table]
) -> None:
    page = br.Extracted(url=URL, http_status=200, tables=tables, text=text)
    found = judge_listing(_claim(Vendor="Acme"), page)
    assert (found.holds, found.rows) == (holds, 0)
    if holds == UNKNOWN:
        assert found.detail == f"{URL} shows neither the list nor that there is nothing in it"


def test_a_table_with_a_heading_of_an_entered_field_is_the_list() -> None:
    assert judge_listing(_claim(Vendor="Acme"), _page(("A-2", "Acme", "3"))).holds == NO
