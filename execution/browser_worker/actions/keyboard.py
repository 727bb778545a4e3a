"""What a person does with a keyboard."""

from __future__ import annotations

from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.actions.pointer import until_document
from execution.browser_worker.document import Document
from execution.browser_worker.fields import resolved
from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from execution.browser_worker.targets import Answer, Targets, raise_unless_ok
from skyagent.execution.v1 import browser_pb2 as pb


async def type_text(step: Step, action: pb.TypeAction) -> None:
    """Types text key by key."""
    if action.HasField("target"):
        await _focus(step, action.target)
    text = await resolved(step, await _focused(step), action.text)
    step.dispatch()
    if step.vault.holds_secret(action.text):
        for document in await step.tab.worlds.all():
            await document.call(bool, "markSecret")
    await step.tab.page.keyboard.type(text)
    if action.submit:
        await step.tab.page.keyboard.press("Enter")


async def press_key(step: Step, action: pb.PressKeyAction) -> None:
    """Presses a key or chord, for instance Control+A."""
    if action.HasField("target"):
        await _focus(step, action.target)
    epoch = step.tab.epoch
    step.dispatch()
    try:
        await step.tab.page.keyboard.press(action.key)
    except PlaywrightError as error:
        if "Unknown key" in error.message:
            raise Stopped(
                pb.BROWSER_STATUS_NOT_FOUND, f"{action.key!r} is no key; use names like Enter, ArrowDown or Control+A"
            ) from error
        raise
    if action.expect_navigation:
        await step.tab.settle(step.mark)
        if step.tab.network.document(step.mark) is not None:  # else the page answered by itself
            await until_document(step, None, epoch)


async def _focused(step: Step) -> Document:
    """The document that the keyboard types into."""
    for document in await step.tab.worlds.all():
        if await document.call(bool, "holdsFocus"):
            return document
    return step.tab.worlds.main


async def _focus(step: Step, target: pb.Target) -> None:
    if target.HasField("point"):
        await step.tab.page.mouse.click(target.point.x, target.point.y)
        return
    element = await Targets(step.tab, step.config, step.clock).find(target)
    answer = await element.document.call(
        Answer, "ready", element.node, {"enabled": True, "reached": False}, step.config.patience * 1000
    )
    raise_unless_ok(answer, element.ref)
    if not await element.document.call(bool, "focusNode", element.node):
        raise Stopped(pb.BROWSER_STATUS_UNEXPECTED_STATE, f"{element.ref} does not take the focus")
