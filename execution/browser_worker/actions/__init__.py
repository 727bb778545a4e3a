"""The actions by name: what each does to a step. A module for each noun."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from execution.browser_worker.actions import dialogs, documents, files, forms, keyboard, pointer, reading, tabs, waiting
from execution.browser_worker.step import Step
from skyagent.execution.v1 import browser_pb2 as pb

Perform = Callable[[Step, pb.BrowserAction], Awaitable[None]]

ACTIONS: Final[Mapping[str, Perform]] = {
    "navigate": lambda step, action: documents.navigate(step, action.navigate),
    "go_back": lambda step, _: documents.go_back(step),
    "reload": lambda step, _: documents.reload(step),
    "observe": lambda step, action: reading.observe(step, action.observe),
    "extract": lambda step, action: reading.extract(step, action.extract),
    "screenshot": lambda step, action: reading.screenshot(step, action.screenshot),
    "click": lambda step, action: pointer.click(step, action.click),
    "hover": lambda step, action: pointer.hover(step, action.hover),
    "drag": lambda step, action: pointer.drag(step, action.drag),
    "scroll": lambda step, action: pointer.scroll(step, action.scroll),
    "type": lambda step, action: keyboard.type_text(step, action.type),
    "press_key": lambda step, action: keyboard.press_key(step, action.press_key),
    "fill": lambda step, action: forms.fill(step, action.fill),
    "fill_form": lambda step, action: forms.fill_form(step, action.fill_form),
    "select": lambda step, action: forms.select(step, action.select),
    "check": lambda step, action: forms.check(step, action.check),
    "wait_for": lambda step, action: waiting.wait_for(step, action.wait_for),
    "tabs": lambda step, action: tabs.tabs(step, action.tabs),
    "pdf": lambda step, action: files.pdf(step, action.pdf),
    "upload": lambda step, action: files.upload(step, action.upload),
    "download": lambda step, action: files.download(step, action.download),
    "handle_dialog": lambda step, action: dialogs.handle_dialog(step, action.handle_dialog),
}

#: These answer an open dialog or look past it; every other action must wait until it is answered.
DIALOG_PROOF: Final = frozenset({"handle_dialog"})
#: These do not need the document that the tab shows to answer.
INDEPENDENT: Final = frozenset({"navigate", "tabs", "handle_dialog", "pdf"})
#: These show the page as it is and need no observation afterwards.
LOOKS: Final = frozenset({"observe", "extract", "screenshot", "pdf"})
#: These load a document.
LOADS: Final = frozenset({"navigate", "go_back", "reload"})
#: These need no page from before a crash.
STARTS_AFRESH: Final = frozenset({"navigate"})
