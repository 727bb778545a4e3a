"""From what an action names to one element, or to a typed answer why not."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NotRequired, TypedDict

from execution.browser_worker.config import BrowserConfig
from execution.browser_worker.document import Document
from execution.browser_worker.stops import DocumentGone, Stopped
from execution.browser_worker.tab import Tab
from infra.clock import Clock
from skyagent.execution.v1 import browser_pb2 as pb

_REFERENCE: Final = re.compile(r"f(\d+)e(\d+):(\d+)")
_STATES: Final = {
    "STALE": pb.BROWSER_STATUS_STALE,
    "HIDDEN": pb.BROWSER_STATUS_HIDDEN,
    "COVERED": pb.BROWSER_STATUS_COVERED,
    "DISABLED": pb.BROWSER_STATUS_DISABLED,
    "NOT_FOUND": pb.BROWSER_STATUS_NOT_FOUND,
    "UNEXPECTED_STATE": pb.BROWSER_STATUS_UNEXPECTED_STATE,
}


class Answer(TypedDict):
    """What the page says of an element: state "OK" or a reason not to act."""

    state: str
    detail: NotRequired[str]
    x: NotRequired[float]
    y: NotRequired[float]
    node: NotRequired[int]
    click: NotRequired[bool]


class _Located(TypedDict):
    invalid: bool
    nodes: list[int]
    hidden: int
    seen: list[str]


class _Offset(TypedDict):
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Element:
    """One node of one document."""

    document: Document
    node: int

    @property
    def ref(self) -> str:
        return f"{self.document.prefix}{self.node}"


@dataclass(frozen=True, slots=True)
class Spot:
    """A point of the tab's viewport in CSS pixels."""

    x: float
    y: float


class Targets:
    """Finds elements in a tab and makes sure that they can be acted on."""

    def __init__(self, tab: Tab, config: BrowserConfig, clock: Clock) -> None:
        self._tab = tab
        self._config = config
        self._clock = clock

    async def find(self, target: pb.Target) -> Element:
        """The element. Raises Stopped: STALE for an old reference or several matches, NOT_FOUND, HIDDEN."""
        if target.WhichOneof("by") == "ref":
            return await self._by_reference(target.ref)
        if target.WhichOneof("by") != "locator":
            raise Stopped(pb.BROWSER_STATUS_NOT_FOUND, "a point names no element; give a reference or a locator")
        return await self._patiently(lambda: self._by_locator(target.locator))

    async def element_or_none(self, target: pb.Target) -> Element | None:
        """The element as it is now, without waiting; None when there is none or more than one."""
        try:
            if target.WhichOneof("by") == "ref":
                return await self._by_reference(target.ref)
            return await self._by_locator(target.locator)
        except Stopped:
            return None

    async def spot(self, target: pb.Target, *, enabled: bool = True) -> Spot:
        """Where to point so that the element receives it. Raises Stopped with what is in the way."""
        if target.WhichOneof("by") == "point":
            return Spot(target.point.x, target.point.y)
        return await self.spot_of(await self.find(target), enabled=enabled)

    async def spot_of(self, element: Element, *, enabled: bool = True) -> Spot:
        """The same for an element that was found."""
        offset = await self._origin(element.document)
        answer = await element.document.call(
            Answer, "ready", element.node, {"enabled": enabled, "reached": True}, self._config.patience * 1000
        )
        raise_unless_ok(answer, element.ref)
        return Spot(answer.get("x", 0) + offset.x, answer.get("y", 0) + offset.y)

    async def _origin(self, document: Document) -> Spot:
        """Where a frame's content begins in the viewport of the tab."""
        x = y = 0.0
        while document is not self._tab.worlds.main:
            parent = self._tab.worlds.parent_of(document)
            if parent is None:
                raise DocumentGone("the frame was removed")
            offset = await parent.call(_Offset, "frameOrigin", await self._tab.worlds.owner_of(document))
            x, y, document = x + offset["x"], y + offset["y"], parent
        return Spot(x, y)

    async def box(self, element: Element) -> dict[str, float]:
        """Box of an element in the tab's viewport: x, y, width, height."""
        offset = await self._origin(element.document)
        box = await element.document.call(dict[str, float], "boxOfNode", element.node)
        return {**box, "x": box["x"] + offset.x, "y": box["y"] + offset.y}

    async def _by_reference(self, ref: str) -> Element:
        found = _REFERENCE.fullmatch(ref)
        if not found:
            raise Stopped(
                pb.BROWSER_STATUS_NOT_FOUND, f"{ref!r} is no reference; they look like f0e3:17 in an observation"
            )
        await self._tab.worlds.all()
        document = self._tab.worlds.by_reference(int(found[1]), int(found[2]))
        if document is None:
            raise Stopped(pb.BROWSER_STATUS_STALE, f"{ref} belongs to a document that is gone; observe the page again")
        return Element(document, int(found[3]))

    async def _by_locator(self, locator: pb.Locator) -> Element:
        wanted = {"role": locator.role, "name": locator.name, "field": locator.field, "css": locator.css}
        if not any(wanted.values()):
            raise Stopped(pb.BROWSER_STATUS_NOT_FOUND, "the locator is empty; give a role, name, field or css")
        found: list[Element] = []
        hidden, seen = 0, list[str]()
        for document in await self._tab.worlds.all():
            try:
                located = await document.call(_Located, "locate", dict(wanted))
            except DocumentGone:
                if document is self._tab.worlds.main:
                    raise
                continue
            if located["invalid"]:
                raise Stopped(pb.BROWSER_STATUS_NOT_FOUND, f"{locator.css!r} is not a CSS selector")
            found += [Element(document, node) for node in located["nodes"]]
            hidden += located["hidden"]
            seen += located["seen"]
        said = describe(locator)
        if len(found) > 1:
            raise Stopped(
                pb.BROWSER_STATUS_STALE,
                f"{said} matches {len(found)}: {'; '.join(seen[:5])}; say more, so that one matches",
            )
        if not found and hidden:
            raise Stopped(pb.BROWSER_STATUS_HIDDEN, f"{said} matches only what is not visible ({hidden})")
        if not found:
            raise Stopped(pb.BROWSER_STATUS_NOT_FOUND, f"{said} matches nothing on {self._tab.url}")
        return found[0]

    async def _patiently(self, look: Callable[[], Awaitable[Element]]) -> Element:
        """Tries again after each change of the page, because elements appear when their data does."""
        until = self._clock.monotonic() + self._config.patience
        while True:
            try:
                return await look()
            except Stopped:
                left = until - self._clock.monotonic()
                if left <= 0 or self._tab.dialog:
                    raise
            except DocumentGone:
                left = until - self._clock.monotonic()
                if left <= 0:
                    raise
            await self._change(min(left, 0.25))

    async def _change(self, limit: float) -> None:
        try:
            await self._tab.worlds.main.call(bool, "changed", limit * 1000)
        except DocumentGone:
            await self._tab.network.stirred(limit)


def raise_unless_ok(answer: Answer, what: str) -> None:
    """Turns what the page said of an element into a typed stop. Nothing was touched."""
    if answer["state"] == "OK":
        return
    status = _STATES[answer["state"]]
    detail = answer.get("detail") or "the node is gone; observe the page again"
    raise Stopped(status, f"{what}: {detail}")


def describe(locator: pb.Locator) -> str:
    """A locator for a person: `button "Save"`."""
    parts = [
        locator.role,
        f'"{locator.name}"' if locator.name else "",
        f"field {locator.field!r}" if locator.field else "",
    ]
    parts.append(f"css {locator.css!r}" if locator.css else "")
    return " ".join(part for part in parts if part)
