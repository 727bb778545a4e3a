"""What proves an action: a picture, what the page said, what went over the wire. Stored before the outcome is sent."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Final, cast

from google.protobuf.json_format import MessageToDict
from playwright.async_api import Error as PlaywrightError

from execution.browser_worker import observe
from execution.browser_worker.cdp import Json, send
from execution.browser_worker.step import Step
from execution.browser_worker.stops import DocumentGone
from execution.browser_worker.tab import Tab
from infra.errors import SkyError
from infra.log import event_logger
from skyagent.common.v1.blob_pb2 import BlobRef

log = event_logger(__name__)

JPEG_QUALITY: Final = 60
#: Seconds; a page that paints nothing new may never answer.
_PICTURE_LIMIT: Final = 3.0


async def picture(
    step: Step, tab: Tab, *, png: bool = False, clip: dict[str, float] | None = None, full_page: bool = False
) -> bytes:
    """An image of the viewport, of the whole page, or of a box of the page; secrets that the page repeats are dots."""
    if (secrets := step.vault.given_out) and tab.answers:
        hidden: list[Json] = [*secrets]
        for document in await tab.worlds.all():
            await document.call(bool, "maskSecrets", hidden)
    parameters: dict[str, Json] = (
        {"format": "png"} if png else {"format": "jpeg", "quality": JPEG_QUALITY, "optimizeForSpeed": True}
    )
    if full_page:
        size = cast("dict[str, float]", (await send(tab.cdp, "Page.getLayoutMetrics"))["cssContentSize"])
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16_000)}
    if clip:
        parameters |= {"clip": {**clip, "scale": 1}, "captureBeyondViewport": full_page}
    return base64.b64decode(str((await send(tab.cdp, "Page.captureScreenshot", parameters))["data"]))


async def of_page(step: Step) -> list[BlobRef]:
    """Stores the usual evidence of a step. What cannot be had is left out: the outcome matters more."""
    tab = step.session.tab
    stored: list[BlobRef] = []

    async def put(data: bytes, media_type: str, role: str) -> None:
        try:
            stored.append(await step.blobs.put(data, media_type, role))
        except (SkyError, OSError) as error:
            log.warning("evidence.not_stored", role=role, error=error)

    image = await _picture_or_none(step, tab)
    text = await _text(step, tab)
    exchanges = [MessageToDict(each, preserving_proto_field_name=True) for each in step.result.exchanges]
    async with asyncio.TaskGroup() as storing:
        if image:
            storing.create_task(put(image, "image/jpeg", "screenshot"))
        if text:
            storing.create_task(put(step.vault.scrub(text).encode(), "text/plain; charset=utf-8", "observation"))
        storing.create_task(put(step.vault.scrub(json.dumps(exchanges, indent=1)).encode(), "application/json", "http"))
    order = ("screenshot", "observation", "http")
    return sorted(stored, key=lambda each: order.index(each.role))


async def of_reading(step: Step) -> list[BlobRef]:
    """What a read of another address gave: its text and what went over the wire."""
    exchanges = [MessageToDict(each, preserving_proto_field_name=True) for each in step.result.exchanges]
    said = step.vault.scrub(str(step.result.extracted))
    return [
        await step.blobs.put(said.encode(), "text/plain; charset=utf-8", "observation"),
        await step.blobs.put(step.vault.scrub(json.dumps(exchanges, indent=1)).encode(), "application/json", "http"),
    ]


async def _picture_or_none(step: Step, tab: Tab) -> bytes | None:
    if tab.dialog or (step.vault.given_out and not tab.answers):
        return None
    try:
        async with asyncio.timeout(_PICTURE_LIMIT):
            return await picture(step, tab)
    except (PlaywrightError, DocumentGone, TimeoutError) as error:
        log.warning("evidence.no_picture", url=tab.url, error=error)
        return None


async def _text(step: Step, tab: Tab) -> str:
    """What was seen, whole, even where the outcome carries only the changes."""
    if tab.dialog:
        return f"dialog ({tab.dialog.type}): {tab.dialog.message}"
    if not tab.answers:
        return f"waiting for a document; shown before: {tab.url}"
    try:
        view = step.view or await observe.look(tab, whole=False)
        return observe.render(view, step.ids.secret()[:12], status=tab.network.document_status)
    except (PlaywrightError, DocumentGone):
        return ""
