"""The live documents of a tab, also those in frames that live in other processes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, cast

from playwright.async_api import BrowserContext, Frame, Page
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.cdp import Cdp, Record, open_cdp, record, send
from execution.browser_worker.document import Document, Numbers, page_script
from execution.browser_worker.stops import DocumentGone

#: Name of the isolated world of our script: the page can neither see nor change what is in it.
_WORLD: Final = "skyagent"


class Worlds:
    """The live documents of a tab."""

    def __init__(self, page: Page, numbers: Numbers, guard: Callable[[Cdp], Awaitable[None]]) -> None:
        self._page = page
        self._numbers = numbers
        #: Called with every session, before anything else is loaded through it.
        self._guard = guard
        self._context: BrowserContext = page.context
        self._documents: dict[str, Document] = {}
        self._parents: dict[str, str] = {}
        self._unchecked: set[Frame] = set()
        self._sessions: dict[Frame, Cdp] = {}
        self.main_frame_id = ""
        self.cdp: Cdp

    async def open(self) -> None:
        """Puts the script into every document of the tab that is there and that will come."""
        self._page.on("framenavigated", self._frame_navigated)
        self.cdp = await open_cdp(self._context, self._page)
        self.main_frame_id = await self._equip(self.cdp)
        self._unchecked.update(frame for frame in self._page.frames if frame != self._page.main_frame)

    @property
    def main(self) -> Document:
        """The document of the tab itself. Raises DocumentGone while there is none."""
        if document := self._documents.get(self.main_frame_id):
            return document
        raise DocumentGone("the tab has no document now")

    def by_reference(self, frame: int, epoch: int) -> Document | None:
        """The document that a reference names, if it still lives."""
        return next((each for each in self._documents.values() if (each.frame, each.epoch) == (frame, epoch)), None)

    async def all(self) -> list[Document]:
        """Every live document, the main one first."""
        await self._check_frames()
        main = self.main
        return [main, *(each for each in self._documents.values() if each is not main)]

    def parent_of(self, document: Document) -> Document | None:
        """The document whose frame element holds this one."""
        return self._documents.get(self._parents.get(document.frame_id, ""))

    async def children_of(self, document: Document) -> dict[int, Document]:
        """Documents in the frame elements of a document, by the element's node number."""
        children: dict[int, Document] = {}
        for child in [each for each in self._documents.values() if self.parent_of(each) is document]:
            try:
                children[await self.owner_of(child)] = child
            except DocumentGone:
                continue
        return children

    async def owner_of(self, child: Document) -> int:
        """Node number of the frame element, in the parent's document."""
        parent = self.parent_of(child)
        if parent is None:
            raise DocumentGone("the frame has no parent document")
        if not child.owner:
            owner = await send(parent.cdp, "DOM.getFrameOwner", {"frameId": child.frame_id})
            node = await send(
                parent.cdp,
                "DOM.resolveNode",
                {"backendNodeId": owner["backendNodeId"], "executionContextId": parent.context_id},
            )
            number = await send(
                parent.cdp,
                "Runtime.callFunctionOn",
                {
                    "functionDeclaration": "function() { return __skyagent.numberOf(this) }",
                    "objectId": record(node["object"])["objectId"],
                    "returnByValue": True,
                },
            )
            child.owner = int(cast("dict[str, int]", number["result"])["value"])
        return child.owner

    async def _equip(self, session: Cdp) -> str:
        session.on("Runtime.executionContextCreated", lambda event: self._created(session, event))
        session.on("Runtime.executionContextDestroyed", lambda event: self._destroyed(session, event))
        session.on("Runtime.executionContextsCleared", lambda _: self._forget(lambda each: each.cdp is session))
        session.on("Page.frameAttached", self._attached)
        session.on("Page.frameDetached", self._detached)
        await self._guard(session)
        await send(session, "Page.enable")
        tree = record((await send(session, "Page.getFrameTree"))["frameTree"])
        self._learn_parents(tree)
        await send(session, "DOM.enable")
        await send(session, "Runtime.enable")
        await send(
            session,
            "Page.addScriptToEvaluateOnNewDocument",
            {"source": page_script(), "worldName": _WORLD, "runImmediately": True},
        )
        return str(record(tree["frame"])["id"])

    def _learn_parents(self, tree: Record) -> None:
        frame = cast("dict[str, str]", tree["frame"])
        if parent := frame.get("parentId"):
            self._parents.setdefault(frame["id"], parent)
        for child in cast("list[Record]", tree.get("childFrames") or []):
            self._learn_parents(child)

    def _created(self, session: Cdp, event: Record) -> None:
        context = record(event["context"])
        if context["name"] != _WORLD:
            return
        frame_id = str(record(context["auxData"])["frameId"])
        self._documents[frame_id] = Document(
            session,
            int(cast("int", context["id"])),
            frame_id,
            self._numbers.frame(frame_id),
            self._numbers.next_epoch(),
        )

    def _destroyed(self, session: Cdp, event: Record) -> None:
        self._forget(lambda each: each.cdp is session and each.context_id == event["executionContextId"])

    def _attached(self, event: Record) -> None:
        self._parents[str(event["frameId"])] = str(event["parentFrameId"])

    def _detached(self, event: Record) -> None:
        if event.get("reason") != "swap":
            self._forget(lambda each: each.frame_id == event["frameId"])

    def _forget(self, ended: Callable[[Document], bool]) -> None:
        self._documents = {key: each for key, each in self._documents.items() if not ended(each)}

    def _frame_navigated(self, frame: Frame) -> None:
        if frame != self._page.main_frame:
            self._unchecked.add(frame)

    async def _check_frames(self) -> None:
        """Gives frames that live in a process of their own a DevTools session; the others share their parent's."""
        while self._unchecked:
            frame = self._unchecked.pop()
            if frame.is_detached():
                self._sessions.pop(frame, None)
                continue
            try:
                session = await open_cdp(self._context, frame)
                self._sessions[frame] = session
                await self._equip(session)
            except (PlaywrightError, DocumentGone):
                # It shares the parent's session, or it went away meanwhile.
                self._sessions.pop(frame, None)
