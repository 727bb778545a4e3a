"""Whether a step's postconditions hold: judged by code, from evidence that did not come from the step's own word."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from control.core.listing import judge_listing
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import plan_pb2 as plan


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe step saw, and which step that was."""

    step_id: str
    outcome: act.Outcome


@dataclass(frozen=True, slots=True)
class Judgement:
    """Findings on all postconditions of a step."""

    findings: tuple[plan.Finding, ...]
    holds: plan.Holds.ValueType
    absent: bool
    """Everybody who was asked says that the effect is not there at all, so that trying again cannot double it."""


def probe_for(claim: plan.Postcondition) -> act.Action | None:
    """The READ action whose outcome shows whether a claim holds; nothing when the step's own outcome shows it."""
    if claim.WhichOneof("claim") != "listed":
        return None
    extract = br.ExtractAction(format=br.EXTRACT_FORMAT_TABLES, url=claim.listed.url)
    return act.Action(effect_class=eff.EFFECT_CLASS_READ, browser=br.BrowserAction(session_id="main", extract=extract))


def judge(claims: Sequence[plan.Postcondition], outcome: act.Outcome, probes: Mapping[int, Probed]) -> Judgement:
    """Judges every claim on a step's outcome and on what its probes saw (by the claim's position).

    Where the world itself was asked, its answer decides alone: a page that said 500 and kept the record kept it, and
    one that said "Saved!" and did not, did not.
    """
    judged = [_judge_one(claim, outcome, probes.get(position)) for position, claim in enumerate(claims)]
    asked = [result for claim, result in zip(claims, judged, strict=True) if probe_for(claim) is not None]
    deciding = asked or judged
    return Judgement(
        tuple(finding for finding, _ in judged),
        _all_of([finding.holds for finding, _ in deciding], outcome),
        absent=bool(asked) and all(is_absent for _, is_absent in asked),
    )


def _all_of(deciding: Sequence[plan.Holds.ValueType], outcome: act.Outcome) -> plan.Holds.ValueType:
    if not deciding:
        return plan.HOLDS_YES if outcome.status == act.OUTCOME_STATUS_OK else plan.HOLDS_UNKNOWN
    if plan.HOLDS_NO in deciding:
        return plan.HOLDS_NO
    return plan.HOLDS_UNKNOWN if plan.HOLDS_UNKNOWN in deciding else plan.HOLDS_YES


def _judge_one(claim: plan.Postcondition, outcome: act.Outcome, probed: Probed | None) -> tuple[plan.Finding, bool]:
    kind = claim.WhichOneof("claim")
    if kind == "listed":
        return _listed(claim, probed)
    if outcome.status != act.OUTCOME_STATUS_OK:
        return _finding(claim, plan.HOLDS_UNKNOWN, "the step's own outcome is not known", outcome), False
    judges = {
        "fields_read_back": _fields_read_back,
        "http_status": _http_status,
        "url": _url,
        "text": _text,
        "element": _element,
        "exit_code": _exit_code,
        "file": _file,
        "window": _window,
    }
    holds, detail = (
        judges[kind](claim, outcome) if kind in judges else (plan.HOLDS_UNKNOWN, "nothing can judge it here")
    )
    return _finding(claim, holds, detail, outcome), False


def _finding(claim: plan.Postcondition, holds: plan.Holds.ValueType, detail: str, outcome: act.Outcome) -> plan.Finding:
    return plan.Finding(
        postcondition=claim, holds=holds, detail=detail, evidence=[blob.digest for blob in outcome.blobs if blob.digest]
    )


def _listed(claim: plan.Postcondition, probed: Probed | None) -> tuple[plan.Finding, bool]:
    if probed is None or probed.outcome.status != act.OUTCOME_STATUS_OK:
        detail = "the application could not be asked" if probed is None else probed.outcome.message
        return plan.Finding(postcondition=claim, holds=plan.HOLDS_UNKNOWN, detail=detail), False
    listing = judge_listing(claim.listed, probed.outcome.browser.extracted)
    finding = _finding(claim, listing.holds, listing.detail, probed.outcome)
    finding.probe_step_id = probed.step_id
    return finding, listing.rows == 0


def _fields_read_back(_claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    wrong = [field for field in outcome.browser.fields if not field.matches]
    if not outcome.browser.fields:
        return plan.HOLDS_UNKNOWN, "no field was read back"
    if wrong:
        shown = "; ".join(f"{field.label} reads {field.value!r} {field.error}".strip() for field in wrong)
        return plan.HOLDS_NO, f"{len(wrong)} of {len(outcome.browser.fields)} fields read back otherwise: {shown}"
    return plan.HOLDS_YES, f"all {len(outcome.browser.fields)} fields read back as set"


def _http_status(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    wanted = claim.http_status
    seen = [e for e in outcome.browser.exchanges if not wanted.method or e.method == wanted.method]
    if not seen:
        return plan.HOLDS_NO, f"no {wanted.method or 'request'} was seen on the wire"
    first = seen[0]
    holds = plan.HOLDS_YES if wanted.min <= first.status <= wanted.max else plan.HOLDS_NO
    answered = f"was answered with {first.status}" if first.status else f"got no answer: {first.error}"
    return holds, f"{first.method} {first.url} {answered}"


def _url(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    at = outcome.browser.observation.url
    return _present(fnmatchcase(at, claim.url.pattern), absent=claim.url.absent), f"the page is {at}"


def _text(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    result = outcome.browser
    seen = " ".join(f"{result.observation.text} {result.extracted.text}".split()).casefold()
    found = " ".join(claim.text.text.split()).casefold() in seen
    return _present(found, absent=claim.text.absent), f"{claim.text.text!r} is {'' if found else 'not '}on the page"


def _element(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    locator = claim.element.locator
    found = any(_is(locator, field) for field in outcome.browser.observation.form_fields)
    what = locator.name or locator.field or locator.css or locator.role
    return _present(found, absent=claim.element.absent), f"a field {what!r} is {'' if found else 'not '}on the page"


def _is(locator: br.Locator, field: br.FormField) -> bool:
    if locator.css == "input[type=password]":
        return field.type == "password"
    wanted = ((locator.role, field.role), (locator.name, field.label), (locator.field, field.field))
    return all(not want or want.casefold() == have.casefold() for want, have in wanted)


def _exit_code(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    code = outcome.workspace.exit_code
    return _present(code == claim.exit_code.code, absent=False), f"the program ended with {code}"


def _file(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    wanted = claim.file
    found = any(
        info.path == wanted.path and wanted.digest in ("", info.blob.digest) for info in outcome.workspace.files
    )
    return _present(found, absent=False), f"{wanted.path} {'has' if found else 'has not'} the expected bytes"


def _window(claim: plan.Postcondition, outcome: act.Outcome) -> tuple[plan.Holds.ValueType, str]:
    titles = [window.title for window in outcome.desktop.observation.windows]
    found = any(fnmatchcase(title, claim.window.title) for title in titles)
    return _present(found, absent=claim.window.absent), f"open windows: {', '.join(titles) or 'none'}"


def _present(found: bool, *, absent: bool) -> plan.Holds.ValueType:  # noqa: FBT001 -- the one value that is being judged
    return plan.HOLDS_YES if found != absent else plan.HOLDS_NO
