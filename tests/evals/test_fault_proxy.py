"""Through the proxy the application behaves as without it, except for the save that was chosen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from aiohttp import ClientSession, CookieJar, FormData, web

from evals.judge import judge
from evals.records import Invoice
from evals.sites import ledger
from evals.sites.fault_proxy import NONE, FaultProxy, Faults, Phase, Save, fault_proxy
from evals.sites.ledger.clerk import Clerk, clerk, form_values
from infra.clock import ManualClock, SystemClock


@asynccontextmanager
async def through(site: ledger.Ledger, faults: Faults = NONE) -> AsyncGenerator[tuple[FaultProxy, Clerk]]:
    async with (
        fault_proxy(site.url, ledger.SAVES, SystemClock(), faults) as proxy,
        clerk(proxy.url, site.account) as worker,
    ):
        yield proxy, worker


async def test_records_entered_through_it_arrive_unchanged(site: ledger.Ledger, invoices: tuple[Invoice, ...]) -> None:
    async with through(site) as (_, worker):
        for invoice in invoices:
            assert f"“{invoice.number}” was added successfully" in (await worker.enter(invoice)).text
    assert judge(site.database, invoices).flawless


async def test_redirects_stay_on_the_proxys_own_address(site: ledger.Ledger, invoices: tuple[Invoice, ...]) -> None:
    async with through(site) as (proxy, worker):
        assert (await worker.enter(invoices[0])).url == proxy.url + ledger.LIST_PATH


async def test_every_save_is_logged_with_its_fields_and_the_applications_status(
    site: ledger.Ledger, invoices: tuple[Invoice, ...]
) -> None:
    async with through(site) as (proxy, worker):
        await worker.enter(invoices[0])
        await worker.post(ledger.FORM_PATH, {"number": "INV-1", "amount": "many"})
    added, refused = proxy.seen
    assert form_values(invoices[0]).items() <= dict(added.save.fields).items()
    assert (added.save.ordinal, added.forwarded, added.status) == (1, True, 302)
    assert (refused.save.fields["number"], refused.forwarded, refused.status) == ("INV-1", True, 200)


async def test_logging_in_is_no_save(site: ledger.Ledger) -> None:
    async with through(site) as (proxy, _):
        assert proxy.seen == []


async def test_the_hook_is_called_before_the_application_knows_and_after_it_has_written(
    site: ledger.Ledger, invoices: tuple[Invoice, ...]
) -> None:
    rows: dict[Phase, int] = {}

    async def on_save(save: Save, phase: Phase) -> None:
        assert save.fields["number"] == invoices[0].number
        rows[phase] = len(judge(site.database, invoices).present)

    async with through(site, Faults(on_save=on_save)) as (_, worker):
        await worker.enter(invoices[0])
    assert rows == {Phase.BEFORE_FORWARD: 0, Phase.AFTER_FORWARD: 1}


@pytest.mark.parametrize("moment", Phase)
async def test_a_browser_that_dies_in_the_middle_of_a_save_does_not_stop_it(
    moment: Phase, site: ledger.Ledger, invoices: tuple[Invoice, ...]
) -> None:
    reached, browser_is_gone, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def on_save(_save: Save, phase: Phase) -> None:
        if phase is moment:
            reached.set()
            await browser_is_gone.wait()
        if phase is Phase.AFTER_FORWARD:
            finished.set()

    async with through(site, Faults(on_save=on_save)) as (_, worker):
        browser = asyncio.create_task(worker.enter(invoices[0]))
        await reached.wait()
        browser.cancel()
        with suppress(asyncio.CancelledError):
            await browser
        browser_is_gone.set()
        await finished.wait()
    assert judge(site.database, invoices[:1]).flawless


async def test_a_false_save_shows_the_applications_own_success_page_and_leaves_no_row(
    site: ledger.Ledger, invoices: tuple[Invoice, ...], tmp_path: Path
) -> None:
    lied_to, other = invoices[:2]
    async with ledger.decoy(site, tmp_path / "decoy") as decoy:

        async def divert(save: Save) -> str | None:
            return await decoy.caught_up() if save.fields["number"] == lied_to.number else None

        async with through(site, Faults(divert=divert)) as (proxy, worker):
            honest, false = await worker.enter(other), await worker.enter(lied_to)
            listed = [await worker.listed(invoice.number) for invoice in (lied_to, other)]
    assert (false.status, false.url) == (honest.status, honest.url)
    assert f"The invoice “{lied_to.number}” was added successfully." in false.text
    assert listed == [0, 1]
    assert [(seen.save.fields["number"], seen.forwarded) for seen in proxy.seen] == [
        (other.number, True),
        (lied_to.number, False),
    ]
    assert judge(site.database, [other]).flawless


async def test_a_session_that_began_after_the_decoy_is_known_to_it(
    site: ledger.Ledger, invoices: tuple[Invoice, ...], tmp_path: Path
) -> None:
    async with ledger.decoy(site, tmp_path / "decoy") as decoy:

        async def divert(_save: Save) -> str | None:
            return await decoy.caught_up()

        async with through(site, Faults(divert=divert)) as (_, worker):
            for invoice in invoices[:2]:
                assert f"“{invoice.number}” was added successfully" in (await worker.enter(invoice)).text
    assert judge(site.database, []).flawless


async def test_posts_wait_for_the_latency_and_pages_do_not(site: ledger.Ledger, invoices: tuple[Invoice, ...]) -> None:
    clock = ManualClock()
    faults = Faults(post_latency_s=2.0)
    async with (
        fault_proxy(site.url, ledger.SAVES, clock, faults) as proxy,
        ClientSession(cookie_jar=CookieJar(unsafe=True)) as session,
    ):
        async with session.get(proxy.url) as page:
            assert page.status == 200
        assert clock.sleeping == 0
        post = asyncio.create_task(session.post(proxy.url + ledger.FORM_PATH, data=form_values(invoices[0])))
        await clock.until_sleeping()
        await clock.advance(1.99)
        assert not post.done()
        await clock.advance(0.01)
        async with await post as answer:
            assert answer.status == 403
    assert proxy.seen[0].took_s == 2.0


async def test_an_application_that_is_away_is_a_bad_gateway(site: ledger.Ledger, invoices: tuple[Invoice, ...]) -> None:
    async with (
        fault_proxy("http://127.0.0.1:9/", ledger.SAVES, SystemClock()) as proxy,
        ClientSession() as session,
        session.post(proxy.url + ledger.FORM_PATH, data=form_values(invoices[0])) as answer,
    ):
        assert answer.status == 502
    assert proxy.seen[0].status == 502


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def behind_proxy(handler: Handler) -> AsyncGenerator[FaultProxy]:
    """The proxy before an application of three lines, to see what passes through."""
    runner = web.ServerRunner(web.Server(handler))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with fault_proxy(address, ledger.SAVES, SystemClock()) as proxy:
            yield proxy
    finally:
        await runner.cleanup()


async def test_headers_paths_and_bytes_pass_as_they_are() -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        answer = web.Response(status=418, body=await request.read())
        answer.headers["X-Path"] = request.raw_path
        answer.headers["X-Host"] = request.headers["Host"]
        answer.headers["X-Agent"] = request.headers["User-Agent"]
        answer.headers.add("Set-Cookie", "a=1")
        answer.headers.add("Set-Cookie", "b=2")
        return answer

    body = bytes(range(256)) * 2000
    async with (
        behind_proxy(echo) as proxy,
        ClientSession(headers={"User-Agent": "test"}) as session,
        session.put(proxy.url + "a%2Fb//c?q=%C5%81+x", data=body, allow_redirects=False) as answer,
    ):
        assert answer.status == 418
        assert await answer.read() == body
        assert answer.headers["X-Path"] == "/a%2Fb//c?q=%C5%81+x"
        assert answer.headers["X-Host"] == proxy.url.removeprefix("http://").rstrip("/")
        assert answer.headers["X-Agent"] == "test"
        assert answer.headers.getall("Set-Cookie") == ["a=1", "b=2"]


async def test_compressed_answers_stay_compressed_and_readable() -> None:
    async def compressed(_request: web.BaseRequest) -> web.StreamResponse:
        answer = web.Response(text="long " * 1000)
        answer.enable_compression(web.ContentCoding.gzip)
        return answer

    async with behind_proxy(compressed) as proxy, ClientSession() as session, session.get(proxy.url) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.text() == "long " * 1000


async def test_multipart_fields_are_read_with_their_line_ends_and_files_are_left_out() -> None:
    async def accept(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    form = FormData(default_to_multipart=True)
    form.add_field("notes", "ünï\r\ncode\r\n")
    form.add_field("scan", b"\x00\xff", filename="scan.bin")
    async with (
        behind_proxy(accept) as proxy,
        ClientSession() as session,
        session.post(proxy.url + ledger.FORM_PATH, data=form) as answer,
    ):
        assert answer.status == 200
    assert proxy.seen[0].save.fields == {"notes": "ünï\r\ncode\r\n"}
