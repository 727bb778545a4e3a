"""A clerk without a browser: logs in and enters invoices by plain HTTP, for trying the application and the proxy."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape

from aiohttp import ClientSession, CookieJar, FormData

from evals.records import Invoice
from evals.sites.ledger.process import FORM_PATH, LIST_PATH, Account
from infra.errors import Unauthenticated

TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
TAG = re.compile(r"<[^>]+>")
ROW = re.compile(r'<th class="field-number">.*?</th>', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Page:
    """What came back in the end, redirects followed."""

    url: str
    status: int
    html: str

    @property
    def text(self) -> str:
        """The page without its tags, one space between words."""
        return " ".join(unescape(TAG.sub("", self.html)).split())


class Clerk:
    """One logged-in session."""

    def __init__(self, session: ClientSession, site: str) -> None:
        self._session = session
        self._site = site

    async def get(self, path: str, **query: str) -> Page:
        """Open a page of the site."""
        async with self._session.get(self._site + path, params=query) as answer:
            return Page(str(answer.url), answer.status, await answer.text())

    async def post(self, path: str, fields: Mapping[str, str]) -> Page:
        """Submit a form as Django's pages do: multipart, with the token that the form carries."""
        found = TOKEN.search((await self.get(path)).html)
        form = FormData({**fields, "csrfmiddlewaretoken": found[1] if found else ""}, default_to_multipart=True)
        async with self._session.post(self._site + path, data=form, headers={"Referer": self._site + path}) as answer:
            return Page(str(answer.url), answer.status, await answer.text())

    async def enter(self, invoice: Invoice) -> Page:
        """Add an invoice; the page shown afterwards."""
        return await self.post(FORM_PATH, form_values(invoice))

    async def listed(self, number: str) -> int:
        """How many rows the application's own list shows for this number."""
        return len(ROW.findall((await self.get(LIST_PATH, q=number)).html))


def form_values(invoice: Invoice) -> dict[str, str]:
    """The names and values that the stock form submits; an unticked box submits nothing."""
    values = {
        "number": invoice.number,
        "supplier": invoice.supplier,
        "email": invoice.email,
        "issued": invoice.issued.isoformat(),
        "category": invoice.category,
        "amount": str(invoice.amount),
        "currency": invoice.currency,
        "notes": invoice.notes,
        "_save": "Save",
    }
    return values | {"paid": "on"} if invoice.paid else values


@asynccontextmanager
async def clerk(site: str, account: Account) -> AsyncGenerator[Clerk]:
    """Log in; raises Unauthenticated when the application refuses."""
    async with ClientSession(cookie_jar=CookieJar(unsafe=True)) as session:
        worker = Clerk(session, site)
        page = await worker.post("admin/login/", {"username": account.username, "password": account.password})
        if "/login/" in page.url:
            raise Unauthenticated("LOGIN_REFUSED", f"{site} refused {account.username}: {page.text[:200]}")
        yield worker
