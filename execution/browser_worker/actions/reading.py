"""Looking: observations, content, pictures."""

from __future__ import annotations

from contextlib import suppress
from typing import Final, TypedDict

from playwright.async_api import Error as PlaywrightError

from execution.browser_worker import evidence
from execution.browser_worker import observe as observing
from execution.browser_worker.actions import documents
from execution.browser_worker.cdp import Json
from execution.browser_worker.document import Document
from execution.browser_worker.step import Step
from execution.browser_worker.stops import DocumentGone, Stopped
from execution.browser_worker.targets import Element
from skyagent.execution.v1 import browser_pb2 as pb

_DEFAULT_BYTES: Final = 256 * 1024
_BESIDE_BYTES: Final = 4096


class _Text(TypedDict):
    text: str
    truncated: bool
    url: str
    title: str


class _Row(TypedDict):
    cells: list[str]
    header: bool


class _Table(TypedDict):
    caption: str
    rows: list[_Row]


class _Tables(TypedDict):
    tables: list[_Table]
    truncated: bool


async def observe(step: Step, action: pb.ObserveAction) -> None:
    """Looks at the page."""
    await step.tab.settle(step.mark)
    await step.observe(action)


async def screenshot(step: Step, action: pb.ScreenshotAction) -> None:
    """Takes a picture and keeps it."""
    targets = step.targets
    clip = await targets.box(await targets.find(action.target)) if action.HasField("target") else None
    if clip is not None and min(clip["width"], clip["height"]) < 1:
        raise Stopped(pb.BROWSER_STATUS_HIDDEN, "the element has no box to picture")
    png = action.format == pb.IMAGE_FORMAT_PNG
    image = await evidence.picture(step, step.tab, png=png, clip=clip, full_page=action.full_page)
    step.result.files.append(await step.blobs.put(image, "image/png" if png else "image/jpeg", "screenshot"))


async def extract(step: Step, action: pb.ExtractAction) -> None:
    """Reads content, of the page or of another address in a tab of its own."""
    if not action.url:
        await step.tab.settle(step.mark)
        await _extract(step, action)
        return
    documents.refuse_outside(step, action.url)
    working = step.tab
    aside = await step.session.watch(await step.session.context.new_page(), unattended=True)
    try:
        step.begin_in(aside)
        try:
            await documents.load(step, action.url)
            await aside.settle(step.mark)
            await _extract(step, action)
        finally:
            step.result.exchanges.extend(aside.network.exchanges(0))
            await _keep_evidence(step)
    finally:
        with suppress(PlaywrightError):
            await aside.page.close()
        step.begin_in(working)


async def _keep_evidence(step: Step) -> None:
    image = b""
    with suppress(PlaywrightError, DocumentGone):
        image = await evidence.picture(step, step.tab)
    if image:
        step.evidence.append(await step.blobs.put(image, "image/jpeg", "screenshot"))


async def _extract(step: Step, action: pb.ExtractAction) -> None:
    root = await step.targets.find(action.root) if action.HasField("root") else None
    every = [root.document] if root else await step.tab.worlds.all()
    extracted = pb.Extracted(url=step.tab.url, http_status=step.tab.network.document_status)
    room = action.max_bytes or _DEFAULT_BYTES
    match action.format:
        case pb.EXTRACT_FORMAT_FORM:
            extracted.form_fields.extend(await observing.form_fields(step.tab, root))
        case pb.EXTRACT_FORMAT_TABLES:
            await _tables(extracted, every, root, room)
            extracted.text = await _beside(every, root)
        case _:
            await _text(extracted, every, root, room, markdown=action.format == pb.EXTRACT_FORMAT_MARKDOWN)
    step.result.extracted.CopyFrom(extracted)


async def _text(
    extracted: pb.Extracted, every: list[Document], root: Element | None, room: int, *, markdown: bool
) -> None:
    blocks: list[str] = []
    for document in every:
        options: dict[str, Json] = {"markdown": markdown, "room": room, "root": root.node if root else 0}
        read = await document.call(_Text, "readText", options)
        if read["text"]:
            blocks.append(read["text"])
            room = max(0, room - len(read["text"].encode()))
        extracted.truncated = extracted.truncated or read["truncated"]
    text = "\n\n".join(blocks).encode()
    limit = room + sum(len(block.encode()) for block in blocks)
    extracted.truncated = extracted.truncated or len(text) > limit
    extracted.text = text[:limit].decode(errors="ignore")


async def _beside(every: list[Document], root: Element | None) -> str:
    """How the page begins: one without any record says there that it shows none."""
    page = pb.Extracted()
    await _text(page, every, root, _BESIDE_BYTES, markdown=False)
    return page.text


async def _tables(extracted: pb.Extracted, every: list[Document], root: Element | None, room: int) -> None:
    for document in every:
        read = await document.call(_Tables, "readTables", {"room": room, "root": root.node if root else 0})
        extracted.truncated = extracted.truncated or read["truncated"]
        for table in read["tables"]:
            kept = extracted.tables.add(caption=table["caption"])
            for row in table["rows"]:
                kept.rows.add(cells=row["cells"], header=row["header"])
