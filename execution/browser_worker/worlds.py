"""Our script in every document: an isolated world per frame, also in frames that live in other processes."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final, TypeVar, cast

from playwright.async_api import BrowserContext, CDPSession, Frame, Page
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker.stops import DocumentGone
from infra.errors import Internal

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None
T = TypeVar("T")

_WORLD: Final = "skyagent"
_PARTS: Final = ("elements.js", "visibility.js", "snapshot.js", "fields.js", "acting.js", "reading.js")
_CALLED: Final = (
    "snapshot", "formFields", "readField", "setField", "leaveField", "locate", "ready", "frameOrigin", "boxOfNode", "submissionBarrier",
    "focusNode", "scrollNode", "quiet", "changed", "readText", "readTables", "showsText", "nodeOf", "numberOf", "markSecret",
)  # fmt: skip
_GONE: Final = (
    "Cannot find context", "Execution context was destroyed", "Inspected target navigated", "Target closed", "Session closed",
    "has been closed", "Cannot find frame", "uniqueContextId not found", "Frame with the given", "has been detached", "No node with given",
)  # fmt: skip


@cache
def page_script() -> str:
    """The files of page/ as one function whose inner functions are called by name."""
    parts = "\n".join(files(__package__).joinpath("page", name).read_text("utf-8") for name in _PARTS)
    return f"(() => {{\nif (globalThis.__skyagent) return;\n{parts}\nglobalThis.__skyagent = {{ {', '.join(_CALLED)} }};\n}})()"


async def send(session: CDPSession, method: str, parameters: dict[str, Json] | None = None) -> dict[str, Json]:
    """One command of the Chrome DevTools Protocol. Raises DocumentGone when its target went away."""
    try:
        return cast("dict[str, Json]", await session.send(method, parameters or {}))
    except PlaywrightError as error:
        if any(sign in error.message for sign in _GONE):
            raise DocumentGone(error.message) from error
        raise


@dataclass(eq=False, slots=True)
class Document:
    """One document in one frame, for as long as it lives."""

    cdp: CDPSession
    context_id: int
    frame_id: str
    #: Number of its frame within the session.
    frame: int
    #: Number of the document within the session; never used again.
    epoch: int
    #: Node number of the frame element in the parent document; 0 when not known yet.
    owner: int = 0

    @property
    def prefix(self) -> str:
        """What references to its nodes begin with."""
        return f"f{self.frame}e{self.epoch}:"

    async def call(self, shape: type[T], function: str, *arguments: Json) -> T:
        """Calls one of our functions in the document, in one round trip. `shape` is what it returns."""
        result = await send(
            self.cdp,
            "Runtime.callFunctionOn",
            {
                "functionDeclaration": f"function(...values) {{ return __skyagent.{function}(...values) }}",
                "executionContextId": self.context_id,
                "arguments": [{"value": value} for value in arguments],
                "returnByValue": True,
                "awaitPromise": True,
            },
        )
        if details := result.get("exceptionDetails"):
            raise Internal("PAGE_SCRIPT_FAILED", f"{function} failed in the page: {json.dumps(details)[:1500]}")
        value = cast("dict[str, Json]", result["result"]).get("value")
        return cast("T", value)

    async def handle(self, number: int) -> str:
        """The DevTools object id of a node, for commands that take one."""
        result = await send(
            self.cdp,
            "Runtime.callFunctionOn",
            {
                "functionDeclaration": "function(number) { return __skyagent.nodeOf(number) }",
                "executionContextId": self.context_id,
                "arguments": [{"value": number}],
            },
        )
        found = cast("dict[str, Json]", result["result"]).get("objectId")
        if not isinstance(found, str):
            raise DocumentGone("the node is gone")
        return found


@dataclass(slots=True)
class Numbers:
    """Numbers of frames and documents within a session; they only grow, so that an old reference can never hit."""

    epoch: int = 0
    frames: dict[str, int] = field(default_factory=dict[str, int])

    def frame(self, frame_id: str) -> int:
        return self.frames.setdefault(frame_id, len(self.frames))

    def next_epoch(self) -> int:
        self.epoch += 1
        return self.epoch


class Worlds:
    """The live documents of a tab."""

    def __init__(self, page: Page, numbers: Numbers) -> None:
        self._page = page
        self._numbers = numbers
        self._context: BrowserContext = page.context
        self._documents: dict[str, Document] = {}
        self._parents: dict[str, str] = {}
        self._unchecked: set[Frame] = set()
        self._sessions: dict[Frame, CDPSession] = {}
        self.main_frame_id = ""
        self.cdp: CDPSession

    async def open(self) -> None:
        """Puts the script into every document of the tab that is there and that will come."""
        self._page.on("framenavigated", self._frame_navigated)
        self.cdp = await self._context.new_cdp_session(self._page)
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
                    "objectId": cast("dict[str, Json]", node["object"])["objectId"],
                    "returnByValue": True,
                },
            )
            child.owner = int(cast("dict[str, int]", number["result"])["value"])
        return child.owner

    async def _equip(self, session: CDPSession) -> str:
        session.on("Runtime.executionContextCreated", lambda event: self._created(session, event))
        session.on("Runtime.executionContextDestroyed", lambda event: self._destroyed(session, event))
        session.on("Runtime.executionContextsCleared", lambda _: self._cleared(session))
        session.on("Page.frameAttached", lambda event: self._parents.update({event["frameId"]: event["parentFrameId"]}))
        session.on("Page.frameDetached", self._detached)
        await send(session, "Page.enable")
        tree = cast("dict[str, Json]", (await send(session, "Page.getFrameTree"))["frameTree"])
        self._learn_parents(tree)
        await send(session, "DOM.enable")
        await send(session, "Runtime.enable")
        await send(
            session,
            "Page.addScriptToEvaluateOnNewDocument",
            {"source": page_script(), "worldName": _WORLD, "runImmediately": True},
        )
        return str(cast("dict[str, Json]", tree["frame"])["id"])

    def _learn_parents(self, tree: dict[str, Json]) -> None:
        frame = cast("dict[str, str]", tree["frame"])
        if parent := frame.get("parentId"):
            self._parents.setdefault(frame["id"], parent)
        for child in cast("list[dict[str, Json]]", tree.get("childFrames") or []):
            self._learn_parents(child)

    def _created(self, session: CDPSession, event: dict[str, Json]) -> None:
        context = cast("dict[str, Json]", event["context"])
        if context["name"] != _WORLD:
            return
        frame_id = str(cast("dict[str, Json]", context["auxData"])["frameId"])
        self._documents[frame_id] = Document(
            session,
            int(cast("int", context["id"])),
            frame_id,
            self._numbers.frame(frame_id),
            self._numbers.next_epoch(),
        )

    def _destroyed(self, session: CDPSession, event: dict[str, Json]) -> None:
        self._forget(lambda each: each.cdp is session and each.context_id == event["executionContextId"])

    def _cleared(self, session: CDPSession) -> None:
        self._forget(lambda each: each.cdp is session)

    def _detached(self, event: dict[str, Json]) -> None:
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
                session = await self._context.new_cdp_session(frame)
                self._sessions[frame] = session
                await self._equip(session)
            except (PlaywrightError, DocumentGone):
                # It shares the parent's session, or it went away meanwhile.
                self._sessions.pop(frame, None)
