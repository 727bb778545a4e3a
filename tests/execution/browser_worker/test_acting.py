"""Clicks and keys: what is acted on, and the typed answer when it is not."""

from __future__ import annotations

import re

import pytest

from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_FAILED, OUTCOME_STATUS_OK, OUTCOME_STATUS_REFUSED
from skyagent.execution.v1.effect_pb2 import EFFECT_DONE, EFFECT_NONE, EFFECT_UNKNOWN
from tests.execution.browser_worker.hands import IDEMPOTENT, ONCE, READ, Hands, Locating, fields, located, status
from tests.execution.browser_worker.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ref_of(hands: Hands, line: str) -> pb.Target:
    """The reference in the line of an observation that holds that text."""
    found = re.search(
        rf"\[(f\d+e\d+:\d+)\] [^\n]*{re.escape(line)}", (await hands.look(scope=pb.OBSERVE_SCOPE_FULL)).text
    )
    assert found, line
    return pb.Target(ref=found[1])


@pytest.mark.parametrize(
    ("locator", "expected"),
    [
        ({"role": "button", "name": " PLAIN "}, "OK"),
        ({"role": "button", "name": "Never"}, "DISABLED"),
        ({"role": "button", "name": "Also never"}, "DISABLED"),
        ({"role": "button", "name": "Invisible"}, "HIDDEN"),
        ({"role": "button", "name": "Under"}, "COVERED"),
        ({"role": "button", "name": "Twin"}, "STALE"),
        ({"role": "button", "name": "Nowhere"}, "NOT_FOUND"),
        ({"role": "link", "name": "Plain"}, "NOT_FOUND"),
        ({"css": "#plain"}, "OK"),
        ({"css": "]["}, "NOT_FOUND"),
        ({"role": "button", "name": "Late"}, "OK"),
        ({"role": "button", "name": "Deep"}, "OK"),
    ],
)
async def test_a_click_ends_with_what_the_element_allows(hands: Hands, locator: Locating, expected: str) -> None:
    await hands.go("/states")
    outcome = await hands.click(**locator)
    assert status(outcome) == expected, outcome.message
    assert outcome.effect == (EFFECT_DONE if expected == "OK" else EFFECT_NONE)


async def test_an_ambiguous_locator_says_what_it_matched(hands: Hands) -> None:
    await hands.go("/states")
    assert 'matches 2: button "Twin"; button "Twin"' in (await hands.click(role="button", name="Twin")).message


async def test_what_covers_an_element_is_named(hands: Hands) -> None:
    await hands.go("/states")
    assert "div#cover lies over" in (await hands.click(role="button", name="Under")).message


async def test_a_reference_is_clicked_exactly(hands: Hands) -> None:
    await hands.go("/states")
    outcome = await hands.do(click=pb.ClickAction(target=await ref_of(hands, '"Plain"')))
    assert (status(outcome), outcome.browser.observation.title) == ("OK", "clicked")


async def test_a_reference_into_a_document_that_is_gone_is_stale(hands: Hands) -> None:
    await hands.go("/states")
    old = await ref_of(hands, '"Plain"')
    await hands.do(reload=pb.ReloadAction())
    outcome = await hands.do(ONCE, click=pb.ClickAction(target=old))
    assert (status(outcome), outcome.effect, outcome.reason) == ("STALE", EFFECT_NONE, "BROWSER_STALE")


async def test_a_reference_to_a_node_that_was_replaced_by_its_like_is_bound_again(hands: Hands) -> None:
    await hands.go("/states")
    target = await ref_of(hands, '"Rerender"')
    first = await hands.do(click=pb.ClickAction(target=target))
    second = await hands.do(click=pb.ClickAction(target=target))
    assert (status(first), status(second)) == ("OK", "OK")


async def test_a_reference_to_a_node_that_was_replaced_by_two_likes_is_stale(hands: Hands) -> None:
    await hands.go("/states")
    target = await ref_of(hands, '"Plain"')
    await hands.page.evaluate("plain.outerHTML += plain.outerHTML")
    assert status(await hands.do(click=pb.ClickAction(target=target))) == "STALE"


async def test_a_plain_element_with_a_pointer_is_listed_and_clicked(hands: Hands) -> None:
    await hands.go("/states")
    outcome = await hands.do(click=pb.ClickAction(target=await ref_of(hands, '"Just a div"')))
    assert outcome.browser.observation.title == "div"


async def test_a_submission_posts_once_and_reports_the_wire(hands: Hands, site: Site) -> None:
    site.saved.clear()
    await hands.go("/form")
    wanted = {"amount": "12.50", "customer": "ACME"}
    await hands.fill_form(wanted)
    outcome = await hands.do(
        ONCE,
        click=pb.ClickAction(target=located(role="button", name="Save"), expect=fields(wanted), expect_navigation=True),
    )
    wire = [
        (each.method, each.status, each.location)
        for each in outcome.browser.exchanges
        if each.resource_type == "document"
    ]
    assert wire == [("POST", 302, "/saved"), ("GET", 200, "")]
    assert (len(site.saved), site.saved[0]["customer"], outcome.effect) == (1, "ACME", EFFECT_DONE)
    assert [each.role for each in outcome.blobs] == ["screenshot", "observation", "http"]


async def test_nothing_is_clicked_when_a_field_does_not_hold_what_was_approved(hands: Hands, site: Site) -> None:
    site.saved.clear()
    await hands.go("/form")
    await hands.fill_form({"amount": "12.50", "customer": "ACME"})
    expect = fields({"amount": "12.5", "customer": "Mallory"})
    outcome = await hands.do(ONCE, click=pb.ClickAction(target=located(name="Save", role="button"), expect=expect))
    assert (status(outcome), outcome.effect, site.saved) == ("UNEXPECTED_STATE", EFFECT_NONE, [])
    assert [each.matches for each in outcome.browser.fields] == [True, False]
    assert "customer holds 'ACME', wanted 'Mallory'" in outcome.message


async def test_a_form_that_comes_back_tells_what_is_wrong_with_which_field(hands: Hands) -> None:
    await hands.go("/strict")
    wanted = {"email": "nobody", "name": "Ada"}
    await hands.fill_form(wanted)
    save = pb.ClickAction(target=located(role="button", name="Save"), expect=fields(wanted), expect_navigation=True)
    outcome = await hands.do(ONCE, click=save)
    assert [(each.label, each.error) for each in outcome.browser.fields] == [
        ("email", "Enter a valid email address."),
        ("name", ""),
    ]


async def test_a_form_that_the_browser_holds_back_is_said_to_have_had_no_effect(hands: Hands, site: Site) -> None:
    site.saved.clear()
    await hands.go("/form")
    outcome = await hands.do(
        ONCE, click=pb.ClickAction(target=located(role="button", name="Save"), expect_navigation=True)
    )
    assert (status(outcome), outcome.effect, site.saved) == ("UNEXPECTED_STATE", EFFECT_NONE, [])
    assert "Amount" in outcome.message


async def test_a_save_whose_answer_does_not_come_has_an_unknown_effect(hands: Hands, site: Site) -> None:
    site.slow.clear()
    await hands.go("/slow-form")
    await hands.fill_form({"amount": "1"})
    click = pb.ClickAction(target=located(role="button", name="Save"), expect_navigation=True)
    action = hands.action(ONCE, click=click)
    action.browser.timeout.FromMilliseconds(700)
    outcome = await hands.execute(action)
    beside = await hands.do(READ, extract=pb.ExtractAction(url=f"{site.url}/table"))
    site.slow.set()
    late = await hands.look()
    assert (outcome.status, status(outcome), outcome.effect) == (OUTCOME_STATUS_FAILED, "TIMEOUT", EFFECT_UNKNOWN)
    assert f"still waits for POST {site.url}/slow-save" in outcome.message
    assert (status(beside), late.title) == ("OK", "Saved")


async def test_a_confirmation_stops_everything_until_it_is_answered(hands: Hands) -> None:
    await hands.go("/states")
    opened = await hands.click(ONCE, role="button", name="Confirm")
    assert (status(opened), opened.browser.dialog, opened.effect) == ("DIALOG_OPEN", "Really?", EFFECT_NONE)
    assert status(await hands.do(observe=pb.ObserveAction())) == "DIALOG_OPEN"
    answered = await hands.do(ONCE, handle_dialog=pb.HandleDialogAction(accept=True))
    assert (status(answered), answered.browser.observation.title) == ("OK", "yes")


async def test_an_alert_leaves_the_effect_of_a_click_unknown(hands: Hands) -> None:
    await hands.go("/states")
    assert (await hands.click(ONCE, role="button", name="Alert")).effect == EFFECT_UNKNOWN
    assert status(await hands.do(handle_dialog=pb.HandleDialogAction(accept=True))) == "OK"


async def test_a_prompt_takes_text(hands: Hands) -> None:
    await hands.go("/states")
    await hands.click(role="button", name="Prompt")
    answered = await hands.do(handle_dialog=pb.HandleDialogAction(accept=True, text="Ada"))
    assert answered.browser.observation.title == "Ada"


async def test_without_a_dialog_there_is_none_to_answer(hands: Hands) -> None:
    await hands.go("/states")
    assert status(await hands.do(handle_dialog=pb.HandleDialogAction(accept=True))) == "NOT_FOUND"


@pytest.mark.parametrize(
    ("frame", "button", "said"), [("same", "Inner", "inner-clicked"), ("cross", "Cross", "cross-clicked")]
)
async def test_elements_in_frames_are_clicked_where_they_are(
    hands: Hands, site: Site, frame: str, button: str, said: str
) -> None:
    hands.may_reach(site.url, site.other)
    await hands.go("/frames")
    outcome = await hands.click(role="button", name=button)
    assert status(outcome) == "OK", outcome.message
    assert said in (await hands.look()).text


async def test_an_element_in_a_frame_of_another_site_in_a_frame_of_another_site_is_clicked(
    hands: Hands, site: Site
) -> None:
    hands.may_reach(site.url, site.other)
    await hands.go("/frames")
    outcome = await hands.click(role="button", name="Nested")
    assert status(outcome) == "OK", outcome.message
    assert '"pressed"' in (await hands.look()).text


async def test_a_shadow_button_reads_a_shadow_field(hands: Hands) -> None:
    await hands.go("/shadow")
    await hands.fill_form({"deep": "pearl"})
    assert (await hands.click(role="button", name="Shadow button")).browser.observation.title == "pearl"


async def test_typing_goes_key_by_key_to_the_named_element(hands: Hands) -> None:
    await hands.go("/form")
    await hands.do(type=pb.TypeAction(target=located(field="code"), text="abc"))
    pressed = await hands.do(press_key=pb.PressKeyAction(key="Backspace"))
    assert '"Code" ="AB"' in pressed.browser.observation.text


async def test_a_key_that_does_not_exist_is_named(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.do(press_key=pb.PressKeyAction(key="Any"))
    assert status(outcome) == "NOT_FOUND"
    assert "'Any' is no key" in outcome.message


async def test_one_element_is_dragged_onto_another(hands: Hands) -> None:
    await hands.go("/drag")
    outcome = await hands.do(drag=pb.DragAction(source=located(css="#card"), destination=located(css="#bin")))
    assert outcome.browser.observation.title == "dropped card"


async def test_a_point_is_clicked(hands: Hands) -> None:
    await hands.go("/states")
    box = await hands.page.locator("#plain").bounding_box()
    assert box
    outcome = await hands.do(click=pb.ClickAction(target=pb.Target(point=pb.Point(x=box["x"] + 3, y=box["y"] + 3))))
    assert outcome.browser.observation.title == "clicked"


async def test_a_batch_stops_at_the_first_surprise_and_tells_the_effect_of_the_careful_action(
    hands: Hands, site: Site
) -> None:
    site.saved.clear()
    await hands.go("/form")
    fill = hands.action(IDEMPOTENT, fill_form=pb.FillFormAction(fields=fields({"amount": "5"})))
    click = hands.action(ONCE, click=pb.ClickAction(target=located(role="button", name="Nowhere")))
    outcome = await hands.batch(fill, click, fill)
    assert [status(each) for each in outcome.batch.outcomes] == ["OK", "NOT_FOUND"]
    assert (outcome.status, outcome.effect, outcome.reason) == (OUTCOME_STATUS_FAILED, EFFECT_NONE, "BROWSER_NOT_FOUND")


async def test_a_batch_stops_when_the_page_changes_unasked(hands: Hands) -> None:
    await hands.go("/popup")
    leave = hands.action(IDEMPOTENT, click=pb.ClickAction(target=located(role="link", name="Open")))
    outcome = await hands.batch(leave, hands.action(READ, observe=pb.ObserveAction()))
    assert (len(outcome.batch.outcomes), outcome.status, outcome.reason) == (
        1,
        OUTCOME_STATUS_FAILED,
        "BROWSER_NAVIGATED",
    )


async def test_a_batch_runs_to_its_end(hands: Hands, site: Site) -> None:
    site.saved.clear()
    save = pb.ClickAction(target=located(role="button", name="Save"), expect_navigation=True)
    outcome = await hands.batch(
        hands.action(READ, navigate=pb.NavigateAction(url=f"{site.url}/form")),
        hands.action(IDEMPOTENT, fill_form=pb.FillFormAction(fields=fields({"amount": "5"}))),
        hands.action(ONCE, click=save),
    )
    assert (outcome.status, outcome.effect, len(site.saved)) == (OUTCOME_STATUS_OK, EFFECT_DONE, 1)


async def test_after_the_deadline_nothing_begins(hands: Hands) -> None:
    hands.deadline = 0.0
    outcome = await hands.go("/form")
    assert (outcome.status, outcome.reason, outcome.effect) == (OUTCOME_STATUS_REFUSED, "DEADLINE_PASSED", EFFECT_NONE)
