"""Files: printed, given to a page, taken from a page."""

from __future__ import annotations

import asyncio
import mimetypes
from pathlib import Path
from typing import Final

from execution.browser_worker.cdp import Json, send
from execution.browser_worker.step import Step
from execution.browser_worker.stops import Stopped
from infra.digest import digest_hex
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import browser_pb2 as pb

_EXTENSIONS: Final = {"text/csv": ".csv", "application/json": ".json", "text/plain": ".txt"}


async def pdf(step: Step, action: pb.PdfAction) -> None:
    """Prints the page, or an HTML artifact in a browser context that reaches nothing and runs no script."""
    if action.HasField("html"):
        data = await _print_artifact(
            step, (await step.blobs.get(action.html.digest)).decode("utf-8", "replace"), action
        )
    else:
        data = await step.tab.page.pdf(format="A4", print_background=True, landscape=action.landscape)
    step.result.files.append(await step.blobs.put(data, "application/pdf", "pdf"))
    step.message = f"printed {action.name or 'the page'}: {len(data)} bytes"


async def _print_artifact(step: Step, html: str, action: pb.PdfAction) -> bytes:
    browser = step.session.context.browser
    if browser is None:
        raise Stopped(pb.BROWSER_STATUS_CRASHED, "the browser is gone")
    context = await browser.new_context(java_script_enabled=False, offline=True)
    try:
        page = await context.new_page()
        await page.set_content(html, wait_until="load")
        return await page.pdf(format="A4", print_background=True, landscape=action.landscape, prefer_css_page_size=True)
    finally:
        await context.close()


async def upload(step: Step, action: pb.UploadAction) -> None:
    """Gives files to a file input, or to the one that an element opens."""
    element = await step.targets.find(action.target)
    # A page reads its files when the form is sent, so they stay until the run ends.
    folder = step.config.uploads(step.session.key[0])
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    paths = [await _to_disk(step, folder, index, ref) for index, ref in enumerate(action.files)]
    field = await element.document.call(dict[str, str], "readField", element.node)
    step.dispatch()
    if field.get("type") == "file":
        files: list[Json] = [str(path) for path in paths]
        handle = await element.document.handle(element.node)
        await send(element.document.cdp, "DOM.setFileInputFiles", {"files": files, "objectId": handle})
    else:
        spot = await step.targets.spot_of(element)
        async with step.tab.page.expect_file_chooser(timeout=step.config.patience * 1000) as opening:
            await step.tab.page.mouse.click(spot.x, spot.y)
        await (await opening.value).set_files(paths)
    step.message = f"gave {len(paths)} file(s)"


async def _to_disk(step: Step, folder: Path, index: int, ref: BlobRef) -> Path:
    extension = _EXTENSIONS.get(ref.media_type) or mimetypes.guess_extension(ref.media_type) or ""
    path = folder / f"{digest_hex(ref.digest)[:16]}-{index + 1}{extension}"
    path.write_bytes(await step.blobs.get(ref.digest))
    return path


async def download(step: Step, action: pb.DownloadAction) -> None:
    """Keeps what an earlier action began to download; waits for it within the action's timeout."""
    while not step.tab.downloads:
        await step.tab.network.stirred(1.0)
    # It waits there until it is kept: an action that comes to its timeout leaves it to the next.
    taken = step.tab.downloads[0]
    failure = await taken.failure()
    if failure:
        step.tab.downloads.remove(taken)
        raise Stopped(pb.BROWSER_STATUS_NETWORK_ERROR, f"the download of {taken.url} failed: {failure}")
    path = await taken.path()
    size, most = path.stat().st_size, step.config.largest_download
    if size > most:
        step.tab.downloads.remove(taken)
        await taken.delete()
        said = f"{taken.url} is a file of {size} bytes; the worker keeps at most {most}"
        raise Stopped(pb.BROWSER_STATUS_UNEXPECTED_STATE, said)
    data = await asyncio.to_thread(path.read_bytes)
    name = action.name or taken.suggested_filename
    media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
    step.result.files.append(await step.blobs.put(data, media_type, "download"))
    step.tab.downloads.remove(taken)
    await taken.delete()
    step.message = f"downloaded {name}: {len(data)} bytes from {taken.url}"
