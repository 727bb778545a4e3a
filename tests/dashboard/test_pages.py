"""The pages in a real browser, on a real mesh whose gateway is shot at while somebody looks."""

from __future__ import annotations

import os
import signal
from typing import Literal
from urllib.parse import urlsplit

import pytest
from google.protobuf.json_format import MessageToJson
from playwright.async_api import Browser, expect

from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_ONCE
from skyagent.run.v1.run_service_pb2 import WatchRunResponse
from tests.control.core.simulation import Simulation, group, lost, step
from tests.dashboard.looking import NARROW, WIDE, looking
from tests.dashboard.mission import HOSTILE_GOAL, Shown

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]
PATIENCE_MS = 90_000


async def test_a_run_is_watched_from_question_to_end_through_a_killed_gateway(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        page = look.page
        await page.goto(shown.run_page)
        await expect(page.get_by_text("Approval needed")).to_be_visible(timeout=PATIENCE_MS)
        await expect(page.get_by_text("skyagent approvals approve")).to_be_visible()
        await expect(page.get_by_role("status").get_by_text("Live", exact=True)).to_be_visible()
        await look.shot("asking")

        os.kill(await shown.gateway_pid(), signal.SIGKILL)
        await expect(page.get_by_text("Reconnecting")).to_be_visible(timeout=20_000)
        await expect(page.get_by_text("Approval needed")).to_be_visible()
        await expect(page.get_by_role("status").get_by_text("Live", exact=True)).to_be_visible(timeout=30_000)

        await shown.approve()
        await expect(page.get_by_text("Succeeded", exact=True)).to_be_visible(timeout=PATIENCE_MS)
        await expect(page.get_by_text("Complete", exact=True)).to_be_visible()
        await expect(page.get_by_text("Folded here and by the mesh to the same bytes")).to_be_visible()


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
async def test_every_page_is_clean_in_both_themes_and_sizes(
    shown: Shown, browser: Browser, size: tuple[int, int], scheme: Literal["dark", "light"]
) -> None:
    async with looking(browser, size, scheme) as look:
        page, kind = look.page, f"{scheme}-{size[0]}"
        await page.goto(shown.page("/"))
        await expect(page.get_by_role("link", name="rows.csv")).to_be_visible()
        await look.shot(f"missions-{kind}")
        assert await look.accessibility_faults() == []

        await page.get_by_role("link", name="rows.csv").click()
        await expect(page.get_by_role("button", name="Save outcome.pdf")).to_be_visible()
        await look.shot(f"run-{kind}")
        plan = await page.get_by_role("list", name="Steps of the plan").bounding_box()
        made = await page.get_by_role("heading", name="Files made").bounding_box()
        assert plan is not None
        assert made is not None
        assert made["y"] > plan["y"] + plan["height"] or made["x"] > plan["x"] + plan["width"]
        assert await look.accessibility_faults() == []

        await page.get_by_label("Filter the plan").fill("Save the record")
        await (
            page.get_by_role("list", name="Steps of the plan")
            .get_by_role("button", name="Save the record")
            .first.click()
        )
        await expect(page.get_by_role("img", name="What the page looked like").first).to_be_visible()
        await look.shot(f"step-{kind}")
        assert await look.accessibility_faults() == []
        overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0
        assert look.said == []
        assert look.asked == {urlsplit(shown.address).netloc}


async def test_a_false_success_is_shown_with_what_the_page_said_beside_what_is_true(
    shown: Shown, browser: Browser
) -> None:
    async with looking(browser) as look:
        page = look.page
        await page.goto(shown.run_page)
        await page.get_by_role("list", name="Steps of the plan").get_by_text("False success").click()
        await page.get_by_role("button", name="Save the record False success").first.click()
        await page.get_by_role("button", name="Attempt 1 · false success").click()
        await expect(page.get_by_text("the application says it was not")).to_be_visible()
        pictures = page.get_by_role("img", name="What the page looked like")
        await expect(pictures).to_have_count(2)
        for picture in await pictures.all():
            await picture.evaluate("image => image.decode()")
            assert await picture.evaluate("image => image.naturalWidth") > 0
        await look.shot("false-success")


async def test_the_tabs_of_a_step_tell_why_what_and_what_was_seen(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        page = look.page
        await page.goto(shown.run_page)
        await page.get_by_label("Filter the plan").fill("Save the record")
        await (
            page.get_by_role("list", name="Steps of the plan")
            .get_by_role("button", name="Save the record")
            .last.click()
        )
        await expect(page.get_by_role("tabpanel")).to_contain_text("by asking the application again")
        await page.keyboard.press("2")
        await expect(page.get_by_role("tabpanel")).to_contain_text("Must read back so, right before the click")
        await page.keyboard.press("3")
        await expect(page.get_by_role("tabpanel")).to_contain_text("On the wire")
        await look.shot("saw")
        await page.keyboard.press("4")
        await page.get_by_role("tabpanel").get_by_role("button").first.click()
        await expect(page.get_by_role("tabpanel")).to_contain_text("skyagent.run.v1.RunService/ListEvents")
        await page.get_by_role("tabpanel").get_by_role("button", name="Copy").click()
        assert "grpcurl -plaintext" in await page.evaluate("navigator.clipboard.readText()")
        assert look.said == []


async def test_an_artifact_is_saved_under_its_name(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        await look.page.goto(shown.run_page)
        async with look.page.expect_download() as saving:
            await look.page.get_by_role("button", name="Save outcome.csv").click()
        saved = await saving.value
        assert saved.suggested_filename == "outcome.csv"
        assert (await saved.path()).read_bytes().count(b"INV-") >= 4


async def test_the_token_leaves_the_address_and_new_tabs_are_let_in_without_it(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        async with look.page.expect_response("**/session"):
            await look.page.goto(shown.page("/"))
        await expect(look.page.get_by_role("heading", name="Missions")).to_be_visible()
        assert "token" not in look.page.url
        tab = await look.page.context.new_page()
        await tab.goto(f"{shown.address}/")
        await expect(tab.get_by_role("link", name="rows.csv")).to_be_visible()


async def test_who_is_not_known_is_asked_for_a_token(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        await look.page.goto(f"{shown.address}/runs/{shown.run_id}")
        await look.page.get_by_label("Token").fill(shown.token)
        await look.page.get_by_role("button", name="Sign in").click()
        await expect(look.page.get_by_text("Records verified")).to_be_visible()


async def test_a_run_that_does_not_exist_is_an_error_with_code_and_request(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        await look.page.goto(shown.page(f"/runs/{'0' * 26}"))
        await expect(look.page.get_by_role("alert")).to_contain_text("NOT_FOUND RUN_NOT_FOUND")
        await expect(look.page.get_by_role("alert")).to_contain_text("Request")


async def test_a_goal_made_of_markup_is_shown_as_text(shown: Shown, browser: Browser) -> None:
    run_id = await shown.ask_for(HOSTILE_GOAL)
    async with looking(browser) as look:
        await look.page.goto(shown.page(f"/runs/{run_id}"))
        await expect(look.page.get_by_role("heading", name="<img src=x")).to_be_visible()
        await look.page.goto(shown.page("/"))
        await expect(look.page.get_by_text("<script>")).to_be_visible()
        assert await look.page.title() == "SkyAgentOS"
        assert look.said == []


async def test_an_uncertain_step_is_shown_with_the_command_that_settles_it(shown: Shown, browser: Browser) -> None:
    run = Simulation([group("form"), step("send it", "form", EFFECT_CLASS_ONCE)], lambda _record, _attempt: lost())
    run.run()
    assert run.folded.state.counts.uncertain == 1
    items = [MessageToJson(WatchRunResponse(event=event), indent=None) for event in run.journal]
    async with looking(browser) as look:
        stream = "".join(f"data: {item}\n\n" for item in items)
        await look.page.route(
            "**/*:watch?after_seq=0", lambda route: route.fulfill(body=stream, content_type="text/event-stream")
        )
        await look.page.goto(shown.page("/runs/R"))
        questions = look.page.get_by_role("region", name="Questions for you")
        await expect(questions.get_by_role("heading", name="send it")).to_be_visible()
        await look.shot("uncertain")
        await questions.get_by_role("button", name="Copy").first.click()
        copied = await look.page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("skyagent runs resolve R ")
        assert "--happened" in copied


async def test_missions_are_chosen_by_keyboard_and_filtered_by_address(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        page = look.page
        await page.goto(shown.page("/?show=failed"))
        await expect(page.get_by_text("No mission is like that now.")).to_be_visible()
        await page.get_by_role("button", name="Succeeded").click()
        await expect(page.get_by_role("link", name="rows.csv")).to_be_visible()
        assert page.url.endswith("?show=succeeded")
        for _ in range(await page.get_by_role("main").get_by_role("link").count()):
            await page.keyboard.press("j")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("Records verified")).to_be_visible()
        await page.keyboard.press("g")
        await page.keyboard.press("m")
        await expect(page.get_by_role("heading", name="Missions")).to_be_visible()


async def test_a_page_out_of_sight_holds_no_stream_and_goes_on_where_it_was(shown: Shown, browser: Browser) -> None:
    async with looking(browser) as look:
        page = look.page
        await page.add_init_script(
            "Object.defineProperty(document, 'hidden', {get: () => window.away ?? true});"
            "window.addEventListener('back', () => {window.away = false;"
            "document.dispatchEvent(new Event('visibilitychange'))})"
        )
        watched: list[str] = []
        page.on("request", lambda request: watched.append(request.url) if ":watch" in request.url else None)
        await page.goto(shown.run_page)
        await expect(page.get_by_label("Loading")).to_be_visible()
        assert watched == []
        await page.evaluate("window.dispatchEvent(new Event('back'))")
        await expect(page.get_by_text("Complete", exact=True)).to_be_visible()
        assert len(watched) == 1
