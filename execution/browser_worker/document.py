"""One document and our script in it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Final, TypeVar, cast

from execution.browser_worker.cdp import Cdp, Json, record, send
from execution.browser_worker.stops import DocumentGone
from infra.errors import Internal

T = TypeVar("T")

_PARTS: Final = ("elements.js", "visibility.js", "snapshot.js", "fields.js", "acting.js", "reading.js")
_CALLED: Final = (
    *("snapshot", "readText", "readTables", "showsText"),
    *("formFields", "readField", "setField", "leaveField", "markSecret", "maskSecrets", "submissionBarrier"),
    *("locate", "ready", "frameOrigin", "boxOfNode", "focusNode", "holdsFocus", "scrollNode", "originOf"),
    *("quiet", "changed", "nodeOf", "numberOf"),
)


@cache
def page_script() -> str:
    """The files of page/ as one function that leaves the functions which we call."""
    folder = files("execution.browser_worker").joinpath("page")
    parts = "\n".join(folder.joinpath(name).read_text("utf-8") for name in _PARTS)
    afresh = "call => (...values) => { labelIndex.clear(); return call(...values); }"
    left = f"globalThis.__skyagent = mapped({{ {', '.join(_CALLED)} }}, {afresh});"
    return f"(() => {{\nif (globalThis.__skyagent) return;\n{parts}\n{left}\n}})()"


@dataclass(eq=False, slots=True)
class Document:
    """One document in one frame, for as long as it lives."""

    cdp: Cdp
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
        value = record(result["result"]).get("value")
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
        found = record(result["result"]).get("objectId")
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
