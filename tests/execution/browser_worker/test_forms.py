"""Fields of every kind: set as a person would, and read back."""

from __future__ import annotations

import pytest

from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import OUTCOME_STATUS_OK, OUTCOME_STATUS_REFUSED
from skyagent.execution.v1.effect_pb2 import EFFECT_NONE
from tests.execution.browser_worker.hands import READ, Hands, fields, host_of, located, status
from tests.execution.browser_worker.site import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_kind_of_field_arrives_at_the_server_as_meant(hands: Hands, site: Site) -> None:
    site.saved.clear()
    await hands.go("/form")
    filled = await hands.fill_form(
        {
            "amount": "1,200.50",
            "customer": "Müller & Söhne",
            "kind": "credit note",
            "tags": "blue",
            "due": "31.12.2026",
            "at": "2:30 pm",
            "paid": "yes",
            "priority": "High",
            "notes": "one\ntwo",
            "pin": "4711",
            "code": "abc",
        }
    )
    assert status(filled) == "UNEXPECTED_STATE"
    assert [each.label for each in filled.browser.fields if not each.matches] == ["code"]
    await hands.do(click=pb.ClickAction(target=located(role="button", name="Save"), expect_navigation=True))
    assert site.saved == [
        {
            "amount": "1200.50",
            "customer": "Müller & Söhne",
            "kind": "2",
            "tags": "blue",
            "due": "2026-12-31",
            "at": "14:30",
            "paid": "on",
            "priority": "h",
            "notes": "one\r\ntwo",
            "pin": "4711",
            "code": "ABC",
        }
    ]


async def test_a_field_that_the_page_changes_does_not_match(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.fill_form({"code": "abc"})
    assert (outcome.browser.fields[0].value, outcome.browser.fields[0].matches) == ("ABC", False)
    assert "code holds 'ABC', wanted 'abc'" in outcome.message


async def test_a_field_that_cuts_its_value_does_not_match(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.fill_form({"customer": "A name that is longer than twenty characters"})
    assert (status(outcome), outcome.browser.fields[0].value) == (
        "UNEXPECTED_STATE",
        "A name that is longer than twenty characters"[:20],
    )


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("kind", "Receipt", "NOT_FOUND"),
        ("priority", "Medium", "NOT_FOUND"),
        ("amount", "twelve", "UNEXPECTED_STATE"),
        ("due", "03/04/2026", "UNEXPECTED_STATE"),
        ("frozen", "water", "DISABLED"),
        ("nothing", "x", "NOT_FOUND"),
    ],
)
async def test_a_value_that_a_field_cannot_take_is_refused(hands: Hands, field: str, value: str, expected: str) -> None:
    await hands.go("/form")
    outcome = await hands.fill_form({field: value})
    assert status(outcome) == expected, outcome.message
    assert outcome.message.startswith(f"{field}: ")


async def test_options_are_chosen_by_their_value_too(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.do(select=pb.SelectAction(target=located(field="kind"), values=["1"]))
    assert (outcome.browser.fields[0].value, outcome.browser.fields[0].matches) == ("Bill", True)


async def test_several_options_are_chosen_together(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.do(select=pb.SelectAction(target=located(field="tags"), values=["red", "blue"]))
    assert (outcome.browser.fields[0].value, outcome.browser.fields[0].matches) == ("red\nblue", True)


async def test_ticking_twice_leaves_it_ticked(hands: Hands) -> None:
    await hands.go("/form")
    tick = pb.CheckAction(target=located(field="paid"), checked=True)
    await hands.do(check=tick)
    assert (await hands.do(check=tick)).browser.fields[0].value == "true"
    untick = pb.CheckAction(target=located(field="paid"), checked=False)
    assert (await hands.do(check=untick)).browser.fields[0].value == "false"


async def test_filling_again_replaces_what_was_there(hands: Hands) -> None:
    await hands.go("/form")
    await hands.fill_form({"customer": "first"})
    assert (await hands.fill_form({"customer": "second"})).browser.fields[0].value == "second"


async def test_an_empty_value_clears_a_field(hands: Hands) -> None:
    await hands.go("/form")
    await hands.fill_form({"customer": "first", "amount": "3"})
    cleared = await hands.fill_form({"customer": "", "amount": ""})
    assert [(each.value, each.matches) for each in cleared.browser.fields] == [("", True), ("", True)]


async def test_options_that_come_later_are_waited_for(hands: Hands) -> None:
    await hands.go("/dependent")
    outcome = await hands.fill_form({"country": "Germany", "city": "Bonn"})
    assert status(outcome) == "OK", outcome.message


async def test_a_page_hears_of_what_was_filled_as_if_it_were_typed(hands: Hands) -> None:
    await hands.go("/echo")
    await hands.fill_form({"word": "parrot"})
    assert "\nparrot\n" in (await hands.look()).text


async def test_fields_in_frames_are_filled(hands: Hands, site: Site) -> None:
    hands.may_reach(site.url, site.other)
    await hands.go("/frames")
    outcome = await hands.fill_form({"inside": "one", "across": "two"})
    assert [each.value for each in outcome.browser.fields] == ["one", "two"]


async def test_a_secret_is_typed_and_never_told(hands: Hands, site: Site) -> None:
    site.saved.clear()
    await hands.go("/form")
    values = {"amount": "1", "customer": "{{secret:password}}"}
    filled = await hands.fill_form(values)
    seen = await hands.look(scope=pb.OBSERVE_SCOPE_FULL, form_fields=True)
    picture = await hands.do(extract=pb.ExtractAction(format=pb.EXTRACT_FORMAT_FORM))
    saved = await hands.do(
        click=pb.ClickAction(target=located(role="button", name="Save"), expect=fields(values), expect_navigation=True)
    )
    assert all(each.matches for each in filled.browser.fields)
    assert site.saved[0]["customer"] == "hunter22"
    assert "hunter22" not in f"{filled}{seen}{picture}{saved}"
    assert not any(b"hunter22" in data for data in hands.blobs.kept.values())


async def test_a_secret_that_a_page_repeats_is_scrubbed(hands: Hands) -> None:
    await hands.go("/echo")
    await hands.fill_form({"word": "{{secret:password}}"})
    text = (await hands.look()).text
    assert "hunter22" not in text
    assert "{{secret:password}}" in text


async def test_a_secret_that_a_page_repeats_is_dots_in_pictures(hands: Hands) -> None:
    await hands.go("/echo")
    await hands.fill_form({"word": "{{secret:password}}"})
    masked = "getComputedStyle(document.getElementById('out')).webkitTextSecurity"
    assert await hands.page.evaluate(masked) == "disc"


async def test_a_secret_of_another_host_is_refused(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.fill_form({"customer": "{{secret:bound}}"})
    assert (outcome.status, outcome.effect) == (OUTCOME_STATUS_REFUSED, EFFECT_NONE)
    assert "bound to elsewhere.example" in outcome.message


@pytest.mark.parametrize(("field", "typed"), [("inside", True), ("across", False)])
async def test_a_secret_of_a_page_is_not_for_a_frame_of_another_host(
    hands: Hands, site: Site, field: str, *, typed: bool
) -> None:
    hands.may_reach(site.url, site.other)
    await hands.go("/frames")
    filled = await hands.fill_form({field: "{{secret:here}}"})
    target = located(field=field)
    by_key = await hands.do(type=pb.TypeAction(target=target, text="{{secret:here}}"))
    await hands.do(click=pb.ClickAction(target=target))
    unnamed = await hands.do(type=pb.TypeAction(text="{{secret:here}}"))
    for outcome in (filled, by_key, unnamed):
        assert (outcome.status == OUTCOME_STATUS_OK) is typed, outcome
        assert f"bound to {host_of(site.url)}" in outcome.message or typed


async def test_an_unknown_secret_is_refused_with_the_setting_to_make(hands: Hands) -> None:
    await hands.go("/form")
    outcome = await hands.fill_form({"customer": "{{secret:shop-login}}"})
    assert "SKYAGENT_SECRET_SHOP_LOGIN" in outcome.message


async def test_a_file_is_given_to_a_page(hands: Hands, site: Site) -> None:
    site.saved.clear()
    file = await hands.blobs.put(b"a,b\n1,2\n", "text/csv", "input")
    await hands.go("/upload")
    await hands.do(upload=pb.UploadAction(target=located(field="file"), files=[file]))
    await hands.do(click=pb.ClickAction(target=located(role="button", name="Send"), expect_navigation=True))
    assert (site.saved[0]["text"], site.saved[0]["name"].endswith(".csv")) == ("a,b\n1,2\n", True)
    folder = hands.executor._config.uploads(hands.run_id)  # pyright: ignore[reportPrivateUsage]
    assert len(list(folder.iterdir())) == 1
    await hands.executor.end_run(hands.run_id)
    assert not folder.exists()


async def test_tables_are_read_as_rows_of_what_can_be_seen(hands: Hands) -> None:
    await hands.go("/table")
    read = (await hands.do(extract=pb.ExtractAction(format=pb.EXTRACT_FORMAT_TABLES))).browser.extracted
    assert (read.tables[0].caption, read.tables[0].rows[0].header) == ("Open", True)
    assert read.text.startswith("Invoices")
    assert [list(row.cells) for row in read.tables[0].rows] == [["No", "Amount"], ["1", "12.50"], ["2", "a|b"]]


async def test_markdown_keeps_headings_links_lists_and_tables(hands: Hands, site: Site) -> None:
    await hands.go("/table")
    text = (await hands.do(extract=pb.ExtractAction(format=pb.EXTRACT_FORMAT_MARKDOWN))).browser.extracted.text
    for line in (
        "# Invoices",
        f"Two of them, see [new]({site.url}/form).",
        "| No | Amount |",
        "| 2 | a\\|b |",
        "- first",
    ):
        assert line in text.replace(" .", "."), line
    assert "trap" not in text


async def test_an_extract_is_cut_at_its_bound_and_says_so(hands: Hands) -> None:
    await hands.go("/long")
    read = (await hands.do(extract=pb.ExtractAction(max_bytes=1000))).browser.extracted
    assert len(read.text.encode()) <= 1000
    assert read.truncated


async def test_a_dialog_of_a_page_that_is_only_read_is_dismissed(hands: Hands, site: Site) -> None:
    await hands.go("/form")
    outcome = await hands.do(READ, extract=pb.ExtractAction(url=f"{site.url}/alerting"))
    assert "after-alert" in outcome.browser.extracted.text


async def test_another_address_is_read_beside_the_working_page(hands: Hands, site: Site) -> None:
    await hands.go("/form")
    await hands.fill_form({"customer": "kept"})
    action = pb.ExtractAction(format=pb.EXTRACT_FORMAT_TABLES, url=f"{site.url}/table")
    outcome = await hands.do(READ, extract=action)
    extracted = outcome.browser.extracted
    assert (extracted.url, extracted.http_status, len(extracted.tables)) == (f"{site.url}/table", 200, 1)
    assert [(each.status, each.resource_type) for each in outcome.browser.exchanges] == [(200, "document")]
    assert [each.role for each in outcome.blobs] == ["screenshot", "observation", "http"]
    assert '="kept"' in (await hands.look(scope=pb.OBSERVE_SCOPE_FULL)).text
