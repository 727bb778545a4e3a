"""Going places: what may be reached, what came back, tabs, pictures, files."""

from __future__ import annotations

import socket

import pytest

from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_REFUSED, Action, NoopAction
from skyagent.execution.v1.effect_pb2 import EFFECT_NONE
from tests.execution.browser_worker.hands import ONCE, READ, Hands, located, status
from tests.execution.browser_worker.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:1/",
        "https://example.com/",
        "file:///etc/passwd",
        "chrome://version",
        "data:text/html,x",
        "javascript:1",
        "nonsense",
    ],
)
async def test_an_address_that_the_mission_may_not_reach_is_refused(hands: Hands, url: str) -> None:
    outcome = await hands.go(url) if "://" in url else await hands.do(navigate=pb.NavigateAction(url=url))
    assert (status(outcome), outcome.effect) == ("POLICY_DENIED", EFFECT_NONE)


async def test_a_redirect_to_a_host_out_of_bounds_never_leaves(hands: Hands, site: Site) -> None:
    site.asked.clear()
    outcome = await hands.go("/away")
    assert status(outcome) == "POLICY_DENIED", outcome.message
    assert "localhost" in outcome.message
    assert not [asked for asked in site.asked if asked.startswith("localhost")]


async def test_a_redirect_in_a_frame_to_a_host_out_of_bounds_never_leaves(hands: Hands, site: Site) -> None:
    site.asked.clear()
    outcome = await hands.go("/framed-away")
    assert "framed-text" in outcome.browser.observation.text
    assert not [asked for asked in site.asked if asked.startswith("localhost")]


async def test_a_tab_that_a_page_opens_on_a_host_out_of_bounds_stays_empty(hands: Hands, site: Site) -> None:
    site.asked.clear()
    await hands.go("/popup")
    await hands.click(role="link", name="Open elsewhere")
    assert not [asked for asked in site.asked if asked.startswith("localhost")]


@pytest.mark.parametrize("link", ["Leave", "Go away"])
async def test_a_link_to_a_host_out_of_bounds_goes_nowhere(hands: Hands, site: Site, link: str) -> None:
    site.asked.clear()
    await hands.go("/popup")
    outcome = await hands.do(ONCE, click=pb.ClickAction(target=located(role="link", name=link), expect_navigation=True))
    assert (status(outcome), outcome.effect) == ("POLICY_DENIED", EFFECT_NONE)
    assert not [asked for asked in site.asked if asked.startswith("localhost")]


async def test_a_page_loads_nothing_from_a_host_out_of_bounds(hands: Hands, site: Site) -> None:
    site.asked.clear()
    outcome = await hands.go("/leaky")
    assert status(outcome) == "OK"
    assert "leaky-text" in outcome.browser.observation.text
    assert site.asked[0] == "127.0.0.1 /leaky"
    assert not [asked for asked in site.asked if asked.startswith("localhost")]


async def test_an_address_where_nobody_listens_is_a_network_error(hands: Hands, closed_port: int) -> None:
    url = f"http://127.0.0.1:{closed_port}/"
    hands.may_reach(url)
    outcome = await hands.go(url)
    assert status(outcome) == "NETWORK_ERROR"
    assert "Connection refused" in outcome.message


async def test_a_server_that_breaks_is_a_network_error(hands: Hands) -> None:
    outcome = await hands.go("/broken")
    assert status(outcome) == "NETWORK_ERROR"
    assert "HTTP 503" in outcome.message


async def test_going_back_shows_the_page_before(hands: Hands) -> None:
    await hands.go("/form")
    await hands.go("/table")
    assert (await hands.do(go_back=pb.GoBackAction())).browser.observation.title == "Invoice"


async def test_a_tab_that_a_page_opens_comes_to_the_front(hands: Hands) -> None:
    await hands.go("/popup")
    outcome = await hands.click(role="link", name="Open")
    assert [(each.title, each.active) for each in outcome.browser.tabs] == [("Opener", False), ("Saved", True)]
    assert outcome.browser.observation.title == "Saved"


async def test_tabs_are_opened_chosen_and_closed(hands: Hands, site: Site) -> None:
    await hands.go("/form")
    await hands.do(tabs=pb.TabsAction(operation=pb.TABS_OPERATION_NEW, url=f"{site.url}/table"))
    chosen = await hands.do(tabs=pb.TabsAction(operation=pb.TABS_OPERATION_SELECT, index=0))
    assert chosen.browser.observation.title == "Invoice"
    left = await hands.do(tabs=pb.TabsAction(operation=pb.TABS_OPERATION_CLOSE, index=0))
    assert [each.title for each in left.browser.tabs] == ["Ledger"]
    assert status(await hands.do(tabs=pb.TabsAction(operation=pb.TABS_OPERATION_SELECT, index=5))) == "NOT_FOUND"


async def test_more_tabs_than_allowed_are_refused(hands: Hands) -> None:
    outcomes = [await hands.do(tabs=pb.TabsAction(operation=pb.TABS_OPERATION_NEW)) for _ in range(8)]
    assert outcomes[-1].status == OUTCOME_STATUS_REFUSED
    assert "8 tabs" in outcomes[-1].message


async def test_text_is_waited_for(hands: Hands) -> None:
    await hands.go("/states")
    outcome = await hands.do(wait_for=pb.WaitForAction(text="LATE"))
    assert status(outcome) == "OK"


async def test_what_never_comes_is_a_timeout(hands: Hands) -> None:
    await hands.go("/states")
    action = hands.action(wait_for=pb.WaitForAction(text="Godot"))
    action.browser.timeout.FromMilliseconds(400)
    assert status(await hands.execute(action)) == "TIMEOUT"


async def test_an_address_is_waited_for(hands: Hands) -> None:
    await hands.go("/saved")
    assert status(await hands.do(wait_for=pb.WaitForAction(url="*/saved"))) == "OK"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({}, b"\xff\xd8"),
        ({"format": pb.IMAGE_FORMAT_PNG}, b"\x89PNG"),
        ({"full_page": True}, b"\xff\xd8"),
        ({"target": located(css="h1")}, b"\xff\xd8"),
    ],
)
async def test_pictures_are_taken(hands: Hands, options: dict[str, object], start: bytes) -> None:
    await hands.go("/form")
    outcome = await hands.do(screenshot=pb.ScreenshotAction(**options))  # pyright: ignore[reportArgumentType]
    assert hands.blobs.kept[outcome.browser.files[0].digest].startswith(start)


async def test_a_page_is_printed(hands: Hands) -> None:
    await hands.go("/table")
    outcome = await hands.do(pdf=pb.PdfAction(name="ledger.pdf"))
    assert hands.blobs.kept[outcome.browser.files[0].digest].startswith(b"%PDF")


async def test_an_html_artifact_is_printed_without_reaching_anything(hands: Hands, site: Site) -> None:
    site.asked.clear()
    html = await hands.blobs.put(f"<h1>Report</h1><img src='{site.url}/x.png'>".encode(), "text/html", "report")
    outcome = await hands.do(pdf=pb.PdfAction(html=html, name="report.pdf"))
    assert hands.blobs.kept[outcome.browser.files[0].digest].startswith(b"%PDF")
    assert site.asked == []


async def test_a_download_becomes_a_file(hands: Hands) -> None:
    await hands.go("/popup")
    await hands.click(role="link", name="Rows")
    outcome = await hands.do(download=pb.DownloadAction())
    assert status(outcome) == "OK", outcome.message
    assert hands.blobs.kept[outcome.browser.files[0].digest] == b"a,b\n1,2\n"
    assert (outcome.browser.files[0].media_type, "rows.csv" in outcome.message) == ("text/csv", True)


async def test_a_download_that_takes_longer_than_an_action_is_left_to_the_next(hands: Hands, site: Site) -> None:
    site.slow.clear()
    await hands.go("/popup")
    await hands.page.evaluate("location.href = '/rows.csv?held&size=50000'")
    asking = hands.action(download=pb.DownloadAction())
    asking.browser.timeout.FromMilliseconds(500)
    assert status(await hands.execute(asking)) == "TIMEOUT"
    site.slow.set()
    outcome = await hands.do(download=pb.DownloadAction())
    assert status(outcome) == "OK", outcome.message
    assert len(hands.blobs.kept[outcome.browser.files[0].digest]) == 50000


@pytest.mark.parametrize(
    ("asked", "said", "why"),
    [("cut", "NETWORK_ERROR", "failed"), ("size=100001", "UNEXPECTED_STATE", "100001 bytes")],
)
async def test_a_download_that_cannot_be_kept_says_why_and_makes_way(
    hands: Hands, asked: str, said: str, why: str
) -> None:
    await hands.go("/popup")
    await hands.page.evaluate(f"location.href = '/rows.csv?{asked}'")
    outcome = await hands.do(download=pb.DownloadAction())
    assert (status(outcome), why in outcome.message) == (said, True), outcome.message
    await hands.click(role="link", name="Rows")
    assert status(await hands.do(download=pb.DownloadAction())) == "OK"


async def test_actions_of_another_kind_are_refused(hands: Hands) -> None:
    outcome = await hands.execute(Action(effect_class=READ, noop=NoopAction()))
    assert (outcome.status, outcome.reason) == (OUTCOME_STATUS_REFUSED, "UNSUPPORTED_ACTION")


async def test_sessions_of_one_run_share_nothing(hands: Hands, site: Site) -> None:
    await hands.go("/login")
    await hands.fill_form({"password": "hunter22"})
    await hands.do(click=pb.ClickAction(target=located(role="button", name="Log in"), expect_navigation=True))
    navigate = pb.NavigateAction(url=f"{site.url}/private")
    here = await hands.do(navigate=navigate)
    there = await hands.do(navigate=navigate, session_id="other")
    assert (here.browser.observation.title, there.browser.observation.title) == ("Private", "Login")


async def test_a_run_that_ended_leaves_no_session(hands: Hands) -> None:
    await hands.go("/form")
    assert [each.run_id for each in hands.executor.inventory().sessions if each.run_id == hands.run_id]
    await hands.executor.end_run(hands.run_id)
    assert not [each for each in hands.executor.inventory().sessions if each.run_id == hands.run_id]
