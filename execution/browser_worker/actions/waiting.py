"""Waiting until something is so."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from execution.browser_worker.step import Step
from execution.browser_worker.stops import DocumentGone
from skyagent.execution.v1 import browser_pb2 as pb

_LOOK_AGAIN = 0.5


async def wait_for(step: Step, action: pb.WaitForAction) -> None:
    """Waits; the action's own timeout is the bound."""
    match action.WhichOneof("condition"):
        case "text":
            await _until(step, lambda: _shows(step, action.text))
        case "text_gone":
            await _until(step, lambda: _shows_not(step, action.text_gone))
        case "visible":
            await _until(step, lambda: _is_there(step, action.visible))
        case "url":
            pattern = re.compile(".*".join(re.escape(part) for part in action.url.split("*")))
            await _until(step, lambda: _is_at(step, pattern))
        case _:
            stillness = action.settled.ToTimedelta().total_seconds() or step.config.stillness
            while not await step.tab.settle(step.mark, limit=stillness + step.config.settle_limit, stillness=stillness):
                continue


async def _until(step: Step, holds: Callable[[], Awaitable[bool]]) -> None:
    while True:
        try:
            if await holds():
                return
            await step.tab.worlds.main.call(bool, "changed", _LOOK_AGAIN * 1000)
        except DocumentGone:
            await step.tab.network.stirred(_LOOK_AGAIN)


async def _shows(step: Step, text: str) -> bool:
    for document in await step.tab.worlds.all():
        if await document.call(bool, "showsText", text):
            return True
    return False


async def _shows_not(step: Step, text: str) -> bool:
    return not await _shows(step, text)


async def _is_there(step: Step, target: pb.Target) -> bool:
    return await step.targets.element_or_none(target) is not None


async def _is_at(step: Step, pattern: re.Pattern[str]) -> bool:
    return pattern.fullmatch(step.tab.url) is not None
