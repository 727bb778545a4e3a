"""What a person does with a mouse."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, Literal

from execution.browser_worker import fields
from execution.browser_worker.step import Step
from execution.browser_worker.stops import DocumentGone, Stopped
from execution.browser_worker.targets import Element, Spot
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.effect_pb2 import EFFECT_NONE

_BUTTONS: Final[dict[pb.MouseButton.ValueType, Literal["left", "middle", "right"]]] = {
    pb.MOUSE_BUTTON_UNSPECIFIED: "left",
    pb.MOUSE_BUTTON_LEFT: "left",
    pb.MOUSE_BUTTON_MIDDLE: "middle",
    pb.MOUSE_BUTTON_RIGHT: "right",
}


async def click(step: Step, action: pb.ClickAction) -> None:
    """Clicks an element, unless what it is about to submit is not what was meant."""
    element = None if action.target.HasField("point") else await step.targets.find(action.target)
    spot = await (step.targets.spot_of(element) if element else step.targets.spot(action.target))
    await _expect(step, list(action.expect))
    epoch = step.tab.epoch
    step.dispatch()
    await _press(step, spot, action)
    if action.expect_navigation:
        await until_document(step, element, epoch)
        await _hear_errors(step, list(action.expect))


async def _expect(step: Step, expected: list[pb.FieldValue]) -> None:
    """Raises Stopped unless every field holds what is about to be submitted."""
    if not expected:
        return
    readings: list[pb.FieldReadback] = []
    for wanted in expected:
        found = await step.targets.element_or_none(wanted.target)
        absent = pb.FieldReadback(label=wanted.label, matches=False, error="the field is not on the page")
        readings.append(await fields.read_back(step, found, wanted) if found else absent)
    step.result.fields.extend(readings)
    if wrong := fields.surprise(readings, expected):
        raise Stopped(pb.BROWSER_STATUS_UNEXPECTED_STATE, f"not clicked, because {wrong}")


async def _hear_errors(step: Step, expected: list[pb.FieldValue]) -> None:
    """When the form came back instead of being taken: what the page says is wrong with each field."""
    for wanted, reading in zip(expected, step.result.fields, strict=False):
        found = await step.targets.element_or_none(wanted.target)
        if found is None:
            return
        reading.error = (await fields.read_back(step, found, wanted)).error


async def _press(step: Step, spot: Spot, action: pb.ClickAction) -> None:
    page = step.tab.page
    for key in action.modifiers:
        await page.keyboard.down(key)
    await page.mouse.click(spot.x, spot.y, button=_BUTTONS[action.button], click_count=action.count or 1)
    for key in action.modifiers:
        await page.keyboard.up(key)


async def until_document(step: Step, element: Element | None, epoch: int) -> None:
    """Waits for the document that the click asks for. Says so at once when the browser itself kept the form back."""
    network = step.tab.network
    if element and network.document(step.mark) is None:
        await step.tab.settle(step.mark, limit=0.5)
        if network.document(step.mark) is None and not step.tab.dialog:
            await _raise_for_barrier(step, element)
    await step.tab.until_document(step.mark, epoch)
    step.raise_if_denied()
    flight = network.document(step.mark)
    if flight and flight.exchange.error and not step.tab.popups:
        if flight.exchange.error == "net::ERR_ABORTED" and (step.tab.downloads or flight.exchange.status):
            return
        raise Stopped(
            pb.BROWSER_STATUS_NETWORK_ERROR,
            f"{flight.exchange.method} {flight.exchange.url} got no answer: {flight.exchange.error}",
        )


async def _raise_for_barrier(step: Step, element: Element) -> None:
    with suppress(DocumentGone):
        barrier = await element.document.call(str, "submissionBarrier", element.node)
        if barrier and not step.tab.network.sent_unsafe(step.mark):
            raise Stopped(
                pb.BROWSER_STATUS_UNEXPECTED_STATE, f"the browser did not submit the form: {barrier}", EFFECT_NONE
            )


async def hover(step: Step, action: pb.HoverAction) -> None:
    """Rests the pointer on an element."""
    spot = await step.targets.spot(action.target, enabled=False)
    step.dispatch()
    await step.tab.page.mouse.move(spot.x, spot.y)


async def drag(step: Step, action: pb.DragAction) -> None:
    """Drags one element onto another, in small moves, because pages watch the way."""
    start = await step.targets.spot(action.source)
    end = await step.targets.spot(action.destination, enabled=False)
    # Finding the destination may have scrolled the page.
    start = await step.targets.spot(action.source) if action.source.WhichOneof("by") != "point" else start
    mouse = step.tab.page.mouse
    step.dispatch()
    await mouse.move(start.x, start.y)
    await mouse.down()
    await mouse.move(end.x, end.y, steps=12)
    await mouse.move(end.x, end.y)
    await mouse.up()


async def scroll(step: Step, action: pb.ScrollAction) -> None:
    """Scrolls the page, an element, or an element into view."""
    element = await step.targets.find(action.target) if action.HasField("target") else None
    document = element.document if element else step.tab.worlds.main
    step.dispatch()
    place = await document.call(
        dict[str, float], "scrollNode", element.node if element else 0, action.delta_x, action.delta_y
    )
    step.message = f"scrolled to {place['x']:.0f}, {place['y']:.0f}"
