from __future__ import annotations

import pytest

from control.core.validate import Probed, judge, probe_for
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import desktop_pb2 as dk
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import workspace_pb2 as ws
from skyagent.run.v1 import plan_pb2 as plan
from tests.control.core.simulation import failed, lost, ok

YES, NO, UNKNOWN = plan.HOLDS_YES, plan.HOLDS_NO, plan.HOLDS_UNKNOWN
LISTED = plan.Postcondition(listed=plan.Listed(url="http://app/?q=A", key="A"))
READ_BACK = plan.Postcondition(fields_read_back=plan.FieldsReadBack())
POSTED = plan.Postcondition(http_status=plan.HttpStatus(method="POST", min=200, max=399))


def _one(claim: plan.Postcondition, outcome: act.Outcome) -> plan.Finding:
    judged = judge([claim], outcome, {})
    assert judged.holds == judged.findings[0].holds
    return judged.findings[0]


def _fields(*fields: br.FieldReadback) -> act.Outcome:
    return ok(fields=fields)


def _exchange(method: str, status: int, error: str = "") -> br.HttpExchange:
    return br.HttpExchange(method=method, url="http://app/add", status=status, error=error)


def _page(**observed: object) -> act.Outcome:
    return ok(observation=br.BrowserObservation(**observed))  # pyright: ignore[reportArgumentType]


def test_fields_that_read_back_as_set_hold() -> None:
    found = _one(
        READ_BACK, _fields(br.FieldReadback(label="A", matches=True), br.FieldReadback(label="B", matches=True))
    )
    assert (found.holds, found.detail) == (YES, "all 2 fields read back as set")


def test_one_field_that_reads_back_otherwise_fails_the_claim_and_is_shown() -> None:
    wrong = br.FieldReadback(label="B", value="7", error="too small")
    found = _one(READ_BACK, _fields(br.FieldReadback(label="A", matches=True), wrong))
    assert (found.holds, found.detail) == (NO, "1 of 2 fields read back otherwise: B reads '7' too small")


def test_no_field_at_all_proves_nothing() -> None:
    found = _one(READ_BACK, _fields())
    assert (found.holds, found.detail) == (UNKNOWN, "no field was read back")


@pytest.mark.parametrize(("status", "holds"), [(199, NO), (200, YES), (302, YES), (399, YES), (400, NO), (500, NO)])
def test_the_first_answer_on_the_wire_decides_about_its_status(status: int, holds: plan.Holds.ValueType) -> None:
    outcome = ok(exchanges=[_exchange("GET", 204), _exchange("POST", status), _exchange("POST", 204)])
    found = _one(POSTED, outcome)
    assert (found.holds, found.detail) == (holds, f"POST http://app/add was answered with {status}")


def test_any_method_counts_when_none_is_named() -> None:
    claim = plan.Postcondition(http_status=plan.HttpStatus(min=200, max=299))
    assert _one(claim, ok(exchanges=[_exchange("GET", 204)])).holds == YES
    assert _one(claim, ok()).detail == "no request was seen on the wire"


def test_a_request_that_never_went_out_or_got_no_answer_fails_the_claim() -> None:
    assert _one(POSTED, ok(exchanges=[_exchange("GET", 200)])).detail == "no POST was seen on the wire"
    found = _one(POSTED, ok(exchanges=[_exchange("POST", 0, "connection reset")]))
    assert (found.holds, found.detail) == (NO, "POST http://app/add got no answer: connection reset")


@pytest.mark.parametrize(
    ("pattern", "absent", "holds"),
    [
        ("http://app/*", False, YES),
        ("http://app", False, NO),
        ("http://app/*", True, NO),
        ("http://other/*", True, YES),
    ],
)
def test_the_address_is_matched_with_wildcards(pattern: str, *, absent: bool, holds: plan.Holds.ValueType) -> None:
    claim = plan.Postcondition(url=plan.UrlIs(pattern=pattern, absent=absent))
    found = _one(claim, _page(url="http://app/done"))
    assert (found.holds, found.detail) == (holds, "the page is http://app/done")


@pytest.mark.parametrize(
    ("text", "absent", "holds", "word"),
    [("welcome  BACK", False, YES, "is"), ("goodbye", False, NO, "is not"), ("welcome", True, NO, "is")],
)
def test_text_is_found_whatever_its_case_and_spacing(
    text: str, *, absent: bool, holds: plan.Holds.ValueType, word: str
) -> None:
    claim = plan.Postcondition(text=plan.TextIs(text=text, absent=absent))
    found = _one(claim, _page(text="heading\n Welcome\n back, clerk"))
    assert (found.holds, found.detail) == (holds, f"{text!r} {word} on the page")


def test_extracted_text_counts_as_well() -> None:
    claim = plan.Postcondition(text=plan.TextIs(text="paid"))
    assert _one(claim, ok(extracted=br.Extracted(text="was Paid"))).holds == YES


@pytest.mark.parametrize(
    ("locator", "holds"),
    [
        (br.Locator(css="input[type=password]"), YES),
        (br.Locator(role="TEXTBOX", name="secret"), YES),
        (br.Locator(role="textbox", name="Other"), NO),
        (br.Locator(role="button", name="Secret"), NO),
        (br.Locator(field="pw"), YES),
        (br.Locator(field="user"), NO),
    ],
)
def test_an_element_is_found_by_all_that_its_locator_says(locator: br.Locator, holds: plan.Holds.ValueType) -> None:
    field = br.FormField(label="Secret", role="textbox", field="pw", type="password")
    claim = plan.Postcondition(element=plan.ElementIs(locator=locator))
    assert _one(claim, _page(form_fields=[field])).holds == holds


def test_an_element_may_have_to_be_absent() -> None:
    claim = plan.Postcondition(element=plan.ElementIs(locator=br.Locator(css="input[type=password]"), absent=True))
    gone = _one(claim, _page(form_fields=[br.FormField(type="text")]))
    assert (gone.holds, gone.detail) == (YES, "a field 'input[type=password]' is not on the page")
    assert _one(claim, _page(form_fields=[br.FormField(type="password")])).holds == NO


@pytest.mark.parametrize(("code", "holds"), [(0, YES), (3, NO)])
def test_a_program_is_judged_by_its_exit_code(code: int, holds: plan.Holds.ValueType) -> None:
    outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, workspace=ws.WorkspaceResult(exit_code=code))
    found = _one(plan.Postcondition(exit_code=plan.ExitCode(code=0)), outcome)
    assert (found.holds, found.detail) == (holds, f"the program ended with {code}")


@pytest.mark.parametrize(
    ("path", "digest", "holds"), [("a", "", YES), ("a", "b3:1", YES), ("a", "b3:2", NO), ("b", "", NO)]
)
def test_a_file_is_judged_by_its_path_and_digest(path: str, digest: str, holds: plan.Holds.ValueType) -> None:
    info = ws.FileInfo(path="a", blob=BlobRef(digest="b3:1"))
    outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, workspace=ws.WorkspaceResult(files=[info]))
    found = _one(plan.Postcondition(file=plan.FileIs(path=path, digest=digest)), outcome)
    assert found.holds == holds
    assert found.detail == f"{path} {'has' if holds == YES else 'has not'} the expected bytes"


@pytest.mark.parametrize(
    ("title", "absent", "holds"), [("*Writer", False, YES), ("Calc*", False, NO), ("Calc*", True, YES)]
)
def test_a_window_is_judged_by_its_title(title: str, *, absent: bool, holds: plan.Holds.ValueType) -> None:
    result = dk.DesktopResult()
    result.observation.windows.add(title="Letter - Writer")
    outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, desktop=result)
    found = _one(plan.Postcondition(window=plan.WindowIs(title=title, absent=absent)), outcome)
    assert (found.holds, found.detail) == (holds, "open windows: Letter - Writer")


def test_a_claim_that_nothing_can_judge_is_unknown() -> None:
    assert _one(plan.Postcondition(), ok()).holds == UNKNOWN


@pytest.mark.parametrize("outcome", [lost(), failed(br.BROWSER_STATUS_TIMEOUT)])
def test_the_own_word_of_a_step_that_did_not_end_well_proves_nothing(outcome: act.Outcome) -> None:
    outcome.browser.fields.add(label="A", matches=True)
    found = _one(READ_BACK, outcome)
    assert (found.holds, found.detail) == (UNKNOWN, "the step's own outcome is not known")


def test_a_step_without_claims_needs_an_outcome_that_is_ok() -> None:
    assert judge([], ok(), {}).holds == YES
    assert judge([], lost(), {}).holds == UNKNOWN


def test_all_claims_must_hold_and_one_that_fails_outweighs_one_that_is_unknown() -> None:
    outcome = ok(fields=[br.FieldReadback(label="A", matches=True)], exchanges=[_exchange("POST", 500)])
    assert judge([READ_BACK, POSTED], outcome, {}).holds == NO
    assert judge([READ_BACK, plan.Postcondition()], outcome, {}).holds == UNKNOWN
    assert judge([POSTED, plan.Postcondition()], outcome, {}).holds == NO


def _probed(*keys: str, outcome: act.Outcome | None = None) -> dict[int, Probed]:
    rows = [br.TableRow(cells=[key]) for key in keys]
    seen = ok(extracted=br.Extracted(url="http://app/?q=A", http_status=200, tables=[br.Table(rows=rows)]))
    seen.blobs.add(digest="b3:seen")
    seen.blobs.add(digest="")
    return {1: Probed("PROBE", outcome or seen)}


def test_where_the_application_was_asked_its_answer_decides_alone() -> None:
    kept = judge([POSTED, LISTED], ok(exchanges=[_exchange("POST", 500)]), _probed("A"))
    assert (kept.holds, [finding.holds for finding in kept.findings]) == (YES, [NO, YES])
    assert kept.findings[1].probe_step_id == "PROBE"
    assert kept.findings[1].evidence == ["b3:seen"]
    lied = judge([POSTED, LISTED], ok(exchanges=[_exchange("POST", 200)]), _probed())
    assert (lied.holds, lied.absent) == (NO, True)


def test_what_is_there_twice_is_not_absent() -> None:
    assert not judge([POSTED, LISTED], ok(), _probed("A", "A")).absent


def test_an_application_that_could_not_be_asked_leaves_the_claim_open() -> None:
    assert judge([POSTED, LISTED], ok(), {}).findings[1].detail == "the application could not be asked"
    asked = judge([POSTED, LISTED], ok(), _probed(outcome=failed(br.BROWSER_STATUS_TIMEOUT)))
    assert (asked.holds, asked.findings[1].detail) == (UNKNOWN, "it failed")


def test_a_failing_claim_about_the_page_says_nothing_about_absence() -> None:
    assert not judge([POSTED], ok(), {}).absent


def test_only_a_list_page_is_asked_and_only_read() -> None:
    probe = probe_for(LISTED)
    assert probe is not None
    assert probe.effect_class == eff.EFFECT_CLASS_READ
    assert probe.browser.extract.url == "http://app/?q=A"
    assert probe.browser.extract.format == br.EXTRACT_FORMAT_TABLES
    assert probe.browser.session_id == "main"
    assert probe_for(POSTED) is None
