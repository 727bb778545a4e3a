"""What an observation says, and what it never says."""

from __future__ import annotations

import re

import pytest

from execution.browser_worker import cdp, document, observe
from skyagent.execution.v1 import browser_pb2 as pb
from tests.execution.browser_worker.hands import Hands, located, status
from tests.execution.browser_worker.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")

FULL = pb.OBSERVE_SCOPE_FULL
VIEWPORT = pb.OBSERVE_SCOPE_VIEWPORT
DIFF = pb.OBSERVE_SCOPE_DIFF


async def test_text_that_a_person_cannot_see_is_never_emitted(hands: Hands) -> None:
    await hands.go("/hidden")
    viewport, full = await hands.look(scope=VIEWPORT), await hands.look(scope=FULL)
    assert re.findall(r"trap-(?!covered)\S+", viewport.text + full.text) == []
    assert "trap-covered" not in viewport.text
    assert "seen-paragraph" in viewport.text
    assert "before after" in viewport.text


async def test_text_of_the_page_stands_between_marks_that_the_page_cannot_know(hands: Hands) -> None:
    await hands.go("/hidden")
    first, second = await hands.look(), await hands.look()
    nonces = [re.findall(r"--- (?:page|end) ([0-9a-f]{12})", each.text) for each in (first, second)]
    assert nonces[0][0] == nonces[0][1] != nonces[1][0]


async def test_text_of_the_page_cannot_pass_for_a_line_of_ours(hands: Hands) -> None:
    await hands.go("/hidden")
    assert "\n[f0e1:1]" not in (await hands.look()).text.replace("\t", "")


async def test_the_viewport_leaves_out_what_is_below_and_counts_it(hands: Hands) -> None:
    await hands.go("/long")
    seen = await hands.look(scope=VIEWPORT)
    assert "Button0" in seen.text
    assert "Button399" not in seen.text
    assert seen.left_out_below > 350
    assert seen.left_out_above == 0
    assert not seen.truncated


async def test_after_scrolling_what_is_above_is_counted(hands: Hands) -> None:
    await hands.go("/long")
    await hands.do(scroll=pb.ScrollAction(delta_y=3000))
    seen = await hands.look(scope=VIEWPORT)
    assert seen.left_out_above > 20
    assert "Button0\n" not in seen.text


async def test_the_token_budget_holds_and_says_what_it_cut(hands: Hands) -> None:
    await hands.go("/long")
    seen = await hands.look(scope=FULL, token_budget=500)
    assert len(seen.text) < 500 * 4 + 400
    assert seen.truncated
    listed = seen.text.count("] button")
    assert listed > 10
    assert seen.left_out_below == 400 - listed


@pytest.mark.parametrize("path", ["/form", "/table", "/long", "/shadow"])
async def test_a_full_observation_holds_every_word_that_the_page_shows(hands: Hands, path: str) -> None:
    await hands.go(path)
    seen = await hands.look(scope=FULL, token_budget=100_000)
    shown = set(re.findall(r"\w{3,}", await hands.page.inner_text("body")))
    missing = shown - set(re.findall(r"\w{3,}", seen.text))
    assert shown
    assert len(missing) <= 0.02 * len(shown), missing


async def test_covered_elements_are_not_listed_but_counted(hands: Hands) -> None:
    await hands.go("/states")
    seen = await hands.look()
    assert '"Under"' not in seen.text
    assert seen.left_out_covered == 1


async def test_a_diff_says_only_what_changed(hands: Hands) -> None:
    await hands.go("/form")
    await hands.look()
    outcome = await hands.fill_form({"customer": "ACME"})
    assert outcome.browser.observation.diff
    lines = [line for line in outcome.browser.observation.text.split("\n") if line.startswith(("+", "-["))]
    assert lines == [lines[0]]
    assert '"Customer" ="ACME"' in lines[0]


async def test_a_new_document_is_shown_whole_even_where_a_diff_was_asked_for(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.go("/table")
    assert not outcome.browser.observation.diff
    assert "12.50" in outcome.browser.observation.text


async def test_references_stay_while_the_document_lives(hands: Hands) -> None:
    await hands.go("/form")
    before = re.findall(r"\[(f\d+e\d+:\d+)\]", (await hands.look()).text)
    await hands.fill_form({"customer": "x"})
    assert re.findall(r"\[(f\d+e\d+:\d+)\]", (await hands.look(scope=VIEWPORT)).text) == before


async def test_find_returns_matching_lines_with_their_neighbours(hands: Hands) -> None:
    await hands.go("/long")
    seen = await hands.look(find=r"number17\b")
    assert [line for line in seen.text.split("\n")[2:-1] if line] == [
        line for line in seen.text.split("\n")[2:-1] if re.search(r"Button16|number17|Button17", line)
    ]
    assert "number17 " in seen.text


async def test_a_subtree_is_one_element_and_what_is_in_it(hands: Hands) -> None:
    await hands.go("/form")
    seen = await hands.look(scope=pb.OBSERVE_SCOPE_SUBTREE, root=located(css="fieldset"))
    assert "High" in seen.text
    assert "Customer" not in seen.text


async def test_frames_of_the_same_and_of_other_sites_stand_under_their_elements(hands: Hands, site: Site) -> None:
    hands.may_reach(site.url, site.other)
    await hands.go("/frames")
    await hands.do(wait_for=pb.WaitForAction(text="nested-text"))
    text = (await hands.look()).text
    order = [
        text.index(mark)
        for mark in ('"same"', "inner-text", '"cross"', "cross-text", '"nested"', "nested-text", "after-frames")
    ]
    assert order == sorted(order)


async def test_open_shadow_roots_and_slots_are_read(hands: Hands) -> None:
    await hands.go("/shadow")
    text = (await hands.look()).text
    for mark in ("shadow-title", "slotted-text", '"Inside shadow"', '"Shadow button"'):
        assert mark in text


async def test_an_observation_is_one_round_trip(hands: Hands, monkeypatch: pytest.MonkeyPatch) -> None:
    await hands.go("/form")
    sent: list[str] = []

    async def counted(cdp: cdp.Cdp, method: str, parameters: cdp.Record | None = None) -> cdp.Record:
        sent.append(method)
        return await cdp.send(method, parameters or {})

    tab = hands.executor._sessions.live()[-1].tab  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(document, "send", counted)
    await observe.look(tab, whole=True)
    assert sent == ["Runtime.callFunctionOn"]


async def test_a_page_that_names_its_fields_like_properties_is_still_read(hands: Hands) -> None:
    await hands.go("/clobbered")
    text = (await hands.look()).text
    for mark in ("before-form", "after-form", '"Still here"'):
        assert mark in text


async def test_form_fields_are_listed_as_a_person_would_know_them(hands: Hands) -> None:
    await hands.go("/form")
    listed = {each.field: each for each in (await hands.look(form_fields=True)).form_fields}
    assert list(listed) == [
        "amount",
        "customer",
        "kind",
        "tags",
        "due",
        "at",
        "paid",
        "priority",
        "notes",
        "pin",
        "code",
        "frozen",
    ]
    assert (listed["amount"].label, listed["amount"].type, listed["amount"].required) == ("Amount:", "number", True)
    assert (listed["customer"].autocomplete, listed["customer"].hint) == ("organization", "as on the letter")
    assert list(listed["kind"].options) == ["---------", "Bill", "Credit note"]
    assert (listed["priority"].label, listed["priority"].role, list(listed["priority"].options)) == (
        "Priority",
        "radiogroup",
        ["Low", "High"],
    )
    assert (listed["notes"].type, listed["pin"].type, listed["paid"].value) == ("textarea", "password", "false")
    assert listed["frozen"].disabled
    assert {each.form_index for each in listed.values()} == {0}


async def test_the_value_of_a_password_never_leaves(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.fill_form({"pin": "4711-geheim"})
    seen = await hands.look(scope=FULL, form_fields=True)
    form = (await hands.do(extract=pb.ExtractAction(format=pb.EXTRACT_FORMAT_FORM))).browser
    assert outcome.browser.fields[0].matches
    assert "4711-geheim" not in f"{outcome}{seen}{form}"
    assert 'password ="•••"' in seen.text


async def test_the_http_status_of_the_document_is_reported(hands: Hands) -> None:
    assert (await hands.go("/form")).browser.observation.http_status == 200
    missing = await hands.go("/no-such-page")
    assert (status(missing), missing.browser.observation.http_status) == ("OK", 404)
