"""A browser worker without a browser, as a process: it knows one form by heart and posts it. `python -m …paper_worker`.

It starts at once, so that tests about the control plane need not wait for Chromium. Its flags turn off one rule each,
so that a campaign can show that it would notice: `--forgetful` keeps no journal over its death, `--unfenced` obeys an
owner that was overtaken, `--trusting` takes the transport's ack for ResultRecorded.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from aiohttp import ClientSession

from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from execution.worker import WorkerSettings, run_worker
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import load_settings
from infra.telemetry import telemetry
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from tests.chaos.faults import FAULTS
from tests.chaos.witness import witness_outcomes


class Paper(NoopExecutor):
    """Like a browser's profile, the file `address` keeps the page that is open over the process's death."""

    def __init__(self, address: Path) -> None:
        self._address = address

    @property
    def kind(self) -> str:
        return "browser"

    def actions(self) -> tuple[str, ...]:
        return ("browser.navigate/1", "browser.fill_form/1", "browser.click/1", "browser.pdf/1")

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> act.Outcome:
        browser, result = assignment.action.browser, br.BrowserResult(status=br.BROWSER_STATUS_OK)
        if browser.HasField("navigate"):
            self._address.write_text(browser.navigate.url)
            result.exchanges.add(method="GET", url=browser.navigate.url, status=200)
            for name in ("number", "amount"):
                result.observation.form_fields.add(label=name.title(), field=name, role="textbox", type="text")
        elif browser.HasField("fill_form"):
            fields = browser.fill_form.fields
            result.fields.extend(br.FieldReadback(label=f.label, value=f.value, matches=True) for f in fields)
        elif browser.HasField("pdf"):
            result.files.append(await blobs.put(b"%PDF", "application/pdf", "artifact"))
        else:
            values = {field.label.lower(): field.value for field in browser.click.expect}
            page = self._address.read_text()
            async with ClientSession() as session, session.post(page, data=values) as answer:
                result.exchanges.add(method="POST", url=page, status=answer.status)
        return act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, browser=result)


async def work(worker_id: str, crash_at: str) -> None:
    settings, clock = load_settings(), SystemClock()
    told = WorkerSettings(
        connect=settings.listen,
        data_dir=settings.data_dir,
        worker_id=worker_id,
        token_file=settings.worker_token_path(worker_id),
        crash_at=crash_at,
    )
    ids = system_ids(clock)
    async with telemetry(settings, worker_id, ids) as spans:
        await run_worker(Paper(told.folder / "address"), told, clock=clock, ids=ids, telemetry=spans)


_FAULTS = ("forgetful", "unfenced", "trusting")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("witness", type=Path)
    parser.add_argument("--crash-at", default="")
    parser.add_argument("--worker-id", default="browser-1")
    for fault in _FAULTS:
        parser.add_argument(f"--{fault}", action="store_true")
    arguments = parser.parse_args()
    witness_outcomes(arguments.witness)
    with ExitStack() as off:
        for fault in _FAULTS:
            if getattr(arguments, fault):
                off.enter_context(FAULTS[fault]())
        asyncio.run(work(arguments.worker_id, arguments.crash_at))
