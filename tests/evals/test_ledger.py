"""The application under test behaves as Django does, and leaves nothing behind."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import ClientSession

from evals.judge import judge
from evals.records import Invoice
from evals.sites import ledger
from evals.sites.ledger.clerk import clerk
from infra.errors import Unauthenticated, Unavailable


async def test_an_entered_invoice_stands_in_the_database_with_every_field(
    site: ledger.Ledger, invoices: tuple[Invoice, ...]
) -> None:
    async with clerk(site.url, site.account) as worker:
        for invoice in invoices:
            page = await worker.enter(invoice)
            assert f"The invoice “{invoice.number}” was added successfully." in page.text
    assert judge(site.database, invoices).flawless


async def test_the_list_page_can_be_asked_for_one_invoice_by_its_number(
    site: ledger.Ledger, invoices: tuple[Invoice, ...]
) -> None:
    async with clerk(site.url, site.account) as worker:
        await worker.enter(invoices[0])
        await worker.enter(invoices[1])
        assert [await worker.listed(invoice.number) for invoice in invoices[:3]] == [1, 1, 0]


async def test_the_application_does_not_prevent_a_second_row_of_the_same_number(
    site: ledger.Ledger, invoices: tuple[Invoice, ...]
) -> None:
    async with clerk(site.url, site.account) as worker:
        await worker.enter(invoices[0])
        await worker.enter(invoices[0])
        assert await worker.listed(invoices[0].number) == 2


async def test_a_post_without_the_forms_token_is_refused(site: ledger.Ledger) -> None:
    async with ClientSession() as session, session.post(site.url + ledger.FORM_PATH, data={"number": "1"}) as answer:
        assert answer.status == 403


async def test_a_wrong_password_is_refused(site: ledger.Ledger) -> None:
    with pytest.raises(Unauthenticated):
        async with clerk(site.url, replace(site.account, password="wrong")):
            pass


async def test_an_invalid_amount_is_refused_by_the_form(site: ledger.Ledger, invoices: tuple[Invoice, ...]) -> None:
    async with clerk(site.url, site.account) as worker:
        page = await worker.post(ledger.FORM_PATH, {"number": "INV-1", "amount": "many"})
    assert "Please correct the errors below" in page.text
    assert judge(site.database, invoices).unexpected == ()


async def test_the_admins_own_style_sheet_is_served(site: ledger.Ledger) -> None:
    async with ClientSession() as session, session.get(site.url + "static/admin/css/base.css") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/css"


async def test_writes_are_logged_ahead(site: ledger.Ledger) -> None:
    with closing(sqlite3.connect(site.database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_second_start_on_the_same_folder_keeps_rows_and_sessions(
    tmp_path: Path, invoices: tuple[Invoice, ...]
) -> None:
    account = ledger.Account("clerk", "correct horse", "key")
    async with ledger.running(tmp_path, account) as first, clerk(first.url, account) as worker:
        await worker.enter(invoices[0])
    async with ledger.running(tmp_path, account) as second, clerk(second.url, account) as worker:
        assert await worker.listed(invoices[0].number) == 1


async def test_it_runs_as_a_process_group_of_its_own_and_is_gone_afterwards(tmp_path: Path) -> None:
    async with ledger.running(tmp_path, ledger.Account("clerk", "correct horse", "key")) as site:
        assert os.getpgid(site.pid) == site.pid != os.getpgid(0)
    with pytest.raises(ProcessLookupError):
        os.kill(site.pid, 0)


async def test_a_folder_that_is_no_database_is_reported_with_the_log(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite3").write_text("this is not a database" * 100)
    with pytest.raises(Unavailable, match="file is not a database"):
        async with ledger.running(tmp_path, ledger.Account("clerk", "correct horse", "key")):
            pass


def test_the_application_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    """Its standard output is inherited by nobody else, so its end is seen as the end of that pipe."""
    order = f'{{"directory": "{tmp_path}", "username": "clerk", "password": "pw", "signing_key": "k"}}\n'
    server = subprocess.Popen(
        [sys.executable, "-m", "evals.sites.ledger.server"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(order)
        server.stdin.flush()
        assert "port" in server.stdout.readline()
        server.stdin.close()
        assert server.stdout.read() == ""
        assert server.wait(10) == 0
