"""Tabs of a session."""

from __future__ import annotations

from execution.browser_worker.actions import documents
from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from skyagent.execution.v1 import browser_pb2 as pb


async def tabs(step: Step, action: pb.TabsAction) -> None:
    """Lists, opens, chooses or closes tabs."""
    session = step.session
    match action.operation:
        case pb.TABS_OPERATION_NEW:
            if action.url:
                documents.refuse_outside(step, action.url)
            step.begin_in(await session.new_tab())
            step.dispatch()
            if action.url:
                await documents.load(step, action.url)
        case pb.TABS_OPERATION_SELECT:
            session.active = _index(step, action.index)
            step.begin_in(session.tab)
            await session.tab.page.bring_to_front()
        case pb.TABS_OPERATION_CLOSE:
            step.dispatch()
            closing = session.tabs[_index(step, action.index)]
            await closing.page.close()
            await session.adopt_popups()
            step.begin_in(session.tab)
            await session.tab.page.bring_to_front()
        case _:
            pass
    await step.list_tabs()


def _index(step: Step, index: int) -> int:
    if index >= len(step.session.tabs):
        raise Stopped(
            pb.BROWSER_STATUS_NOT_FOUND,
            f"there is no tab {index}; the session has {len(step.session.tabs)}, counted from 0",
        )
    return index
