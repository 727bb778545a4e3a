"""Setting form fields and reading them back."""

from __future__ import annotations

from typing import Final, TypedDict

from execution.browser_worker import values
from execution.browser_worker.document import Document
from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from execution.browser_worker.targets import Answer, Element, raise_unless_ok
from skyagent.execution.v1 import browser_pb2 as pb

_OPTION_WAIT: Final = 0.25


class _Reading(TypedDict):
    state: str
    value: str
    raw: str
    type: str
    secret: bool
    error: str


async def set_field(step: Step, element: Element, value: str) -> None:
    """Gives a field a value, as a person would type or choose it. Raises Stopped."""
    kind = await _kind_of(element)
    secret = step.vault.holds_secret(value)
    meant = values.typed(kind, await resolved(step, element.document, value))
    if meant is None:
        raise Stopped(pb.BROWSER_STATUS_UNEXPECTED_STATE, f"{value!r} cannot be meant for a field of type {kind}")
    step.dispatch()
    answer = await _set(step, element, meant, secret=secret)
    raise_unless_ok(answer, element.ref)
    if answer.get("click") and (node := answer.get("node")):
        spot = await step.targets.spot_of(Element(element.document, node))
        await step.tab.page.mouse.click(spot.x, spot.y)
    await element.document.call(bool, "leaveField", element.node)


async def resolved(step: Step, document: Document, value: str) -> str:
    """The value with its secrets, for that very document: a frame may be another's. Raises Refused."""
    if not step.vault.holds_secret(value):
        return value
    return step.vault.resolve(value, await document.call(str, "originOf"))


async def _set(step: Step, element: Element, value: str, *, secret: bool) -> Answer:
    """Tries again while the page changes: options and fields may come once another field is set."""
    until = step.clock.monotonic() + step.config.patience
    while True:
        answer = await element.document.call(Answer, "setField", element.node, value, secret)
        left = until - step.clock.monotonic()
        if answer["state"] in {"OK", "STALE", "UNEXPECTED_STATE"} or left <= 0:
            return answer
        await element.document.call(bool, "changed", min(left, _OPTION_WAIT) * 1000)


async def _kind_of(element: Element) -> str:
    reading = await element.document.call(_Reading, "readField", element.node)
    if reading["state"] != "OK":
        raise Stopped(pb.BROWSER_STATUS_STALE, f"{element.ref}: the field is gone; observe the page again")
    return reading["type"]


async def read_back(step: Step, element: Element, wanted: pb.FieldValue) -> pb.FieldReadback:
    """What the field holds now beside what it should hold. Secret values are compared here and go no further."""
    reading = await element.document.call(_Reading, "readField", element.node)
    if reading["state"] != "OK":
        return pb.FieldReadback(label=wanted.label, matches=False, error="the field is gone")
    meant = await resolved(step, element.document, wanted.value)
    hidden = reading["secret"] or step.vault.holds_secret(wanted.value)
    return pb.FieldReadback(
        label=wanted.label,
        value="" if hidden else reading["value"],
        matches=values.agrees(reading["type"], meant, reading["value"], reading["raw"]),
        error=reading["error"],
    )


async def read_all_back(step: Step, fields: list[tuple[Element, pb.FieldValue]]) -> list[pb.FieldReadback]:
    """Every field, in order."""
    return [await read_back(step, element, wanted) for element, wanted in fields]


def surprise(readings: list[pb.FieldReadback], wanted: list[pb.FieldValue]) -> str:
    """What did not read back as it should; empty when all did."""
    wrong = [
        f"{want.label or want.target.locator.field or want.target.ref or 'field'}"
        + (f": {reading.error}" if reading.error else f" holds {reading.value!r}, wanted {want.value!r}")
        for reading, want in zip(readings, wanted, strict=True)
        if not reading.matches
    ]
    return "; ".join(wrong)
