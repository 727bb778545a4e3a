"""JavaScript dialogs."""

from __future__ import annotations

from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from skyagent.execution.v1 import browser_pb2 as pb


async def handle_dialog(step: Step, action: pb.HandleDialogAction) -> None:
    """Answers the open dialog."""
    dialog = step.tab.dialog
    if dialog is None:
        raise Stopped(pb.BROWSER_STATUS_NOT_FOUND, "no dialog is open")
    step.dispatch()
    step.tab.dialog = None
    step.tab.dialog_opened.clear()
    step.message = f"{'accepted' if action.accept else 'dismissed'} {dialog.type} {dialog.message!r}"
    if action.accept:
        await dialog.accept(action.text if dialog.type == "prompt" else None)
    else:
        await dialog.dismiss()
