"""`skyagent audit`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

import typer
from rich.text import Text

from gateway.cli.exits import Exit
from gateway.cli.output import machine_readable, plain, print_json, print_list
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import Services, connected
from infra.settings import load_settings
from skyagent.run.v1 import run_service_pb2 as api

COLUMNS = ("run", "journal", "events", "head")
PAGE = 1000

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Verify the journals.")


@app.callback()
def audit() -> None:
    """Verify the journals."""


@app.command("verify")
def verify(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs to verify; all of them by default.")] = None,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Recompute the hash chains. Exit code 1 when an event is not as it was written, naming the first one."""
    checked = perform(_verify(runs or []))
    rows = [(run_id, _word(found), str(found.events), found.head_hash) for run_id, found in checked]
    if machine_readable(json_lines=json_lines):
        for run_id, found in checked:
            print_json({"runId": run_id, "intact": found.intact, "firstBadSeq": found.first_bad_seq,
                        "detail": found.detail, "events": found.events, "headHash": found.head_hash})  # fmt: skip
    else:
        print_list([], COLUMNS, rows, json_lines=False)
    if not all(found.intact for _, found in checked):
        raise typer.Exit(Exit.FAILED)


async def _verify(runs: list[str]) -> list[tuple[str, api.VerifyRunResponse]]:
    async with connected(load_settings()) as services:
        wanted = runs or [run_id async for run_id in _all(services)]
        return [(run_id, await services.runs.VerifyRun(api.VerifyRunRequest(run_id=run_id))) for run_id in wanted]


async def _all(services: Services) -> AsyncGenerator[str]:
    token = ""
    while True:
        page = await services.runs.ListRuns(api.ListRunsRequest(page_size=PAGE, page_token=token))
        for run in page.runs:
            yield run.run_id
        token = page.next_page_token
        if not token:
            return


def _word(found: api.VerifyRunResponse) -> Text:
    if found.intact:
        return Text("intact", "green")
    return plain(f"event {found.first_bad_seq}: {found.detail}", "red")
