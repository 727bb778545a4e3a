"""`skyagent audit`."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

import typer
from rich.text import Text

from control.journal import Verification, open_journal
from control.journal.archive import archives_in
from control.journal.audit import every_run
from control.journal.folding import hash_of
from control.rebuild import Progress, Rebuilt, Report, rebuild
from gateway.cli.exits import Exit
from gateway.cli.output import machine_readable, plain, print_json, print_list
from gateway.cli.retention import ERASURES, erasure_row
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import Services, connected
from gateway.supervisor.lock import up_lock
from infra.blobs import open_blobs
from infra.clock import SystemClock
from infra.db import Database, open_database
from infra.errors import Precondition
from infra.settings import Settings, load_settings
from skyagent.run.v1 import run_service_pb2 as api

COLUMNS = ("run", "journal", "events", "head")
TABLES = ("what follows from events", "dropped", "rebuilt", "bytes")
PAGE = 1000

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Verify the journals, and make again what they say.")


@app.callback()
def audit() -> None:
    """Verify the journals, and make again what follows from them."""


@app.command("verify")
def verify(
    runs: Annotated[list[str] | None, typer.Argument(help="Runs to verify; all of them by default.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Read the files themselves, while no mesh runs.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Recompute the hash chains. Exit code 1 when an event is not as it was written; the first of a run is named."""
    settings = load_settings()
    checked = perform(_verify_files(settings, runs or []) if offline else _verify(settings, runs or []))
    rows = [(run_id, _word(found), str(found.events), found.head_hash) for run_id, found in checked]
    if machine_readable(json_lines=json_lines):
        for run_id, found in checked:
            print_json({"runId": run_id, "intact": found.intact, "firstBadSeq": found.first_bad_seq,
                        "detail": found.detail, "events": found.events, "headHash": found.head_hash})  # fmt: skip
    else:
        print_list([], COLUMNS, rows, json_lines=False)
    if not all(found.intact for _, found in checked):
        raise typer.Exit(Exit.FAILED)


@app.command("rebuild")
def rebuild_all(
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Drop all that follows from the journals and make it again, while no mesh runs; killed half-way, nothing changed.

    Exit code 0: everything came back byte for byte. 1: something was not as the journals say, and is now; or a run's
    journal cannot be believed, and what followed from it was left as it was; or a mesh runs.
    """
    as_json = machine_readable(json_lines=json_lines)
    report = perform(_rebuild(load_settings(), as_json=as_json))
    if as_json:
        _print(report)
    else:
        _show(report)
    if not report.same:
        raise typer.Exit(Exit.FAILED)


@app.command("erasures")
def list_erasures(
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List what was erased, by whom and why, newest first."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            asked = api.ListErasuresRequest(run_id=run, page_size=limit)
            found = (await services.runs.ListErasures(asked)).erasures
        print_list(found, ERASURES, [erasure_row(erasure) for erasure in found], json_lines=json_lines)

    perform(work())


async def _verify(settings: Settings, runs: list[str]) -> list[tuple[str, api.VerifyRunResponse]]:
    async with connected(settings) as services:
        wanted = runs or [run_id async for run_id in _all(services)]
        return [(run_id, await services.runs.VerifyRun(api.VerifyRunRequest(run_id=run_id))) for run_id in wanted]


async def _verify_files(settings: Settings, runs: list[str]) -> list[tuple[str, api.VerifyRunResponse]]:
    async with (
        _files(settings) as database,
        open_blobs(settings.blobs_dir) as blobs,
        open_journal(database, clock=SystemClock(), blobs=blobs) as journal,
    ):
        heads = [await journal.head(run_id) for run_id in runs] or [head async for head in every_run(journal)]
        found = [(head, await journal.verify(head.run_id)) for head in heads]
    return [(head.run_id, _answer(verification, head.head_hash)) for head, verification in found]


async def _rebuild(settings: Settings, *, as_json: bool) -> Report:
    async with _files(settings) as database, open_blobs(settings.blobs_dir) as blobs:
        return await rebuild(database, _tell_program if as_json else _tell_person, archives_in(blobs))


@asynccontextmanager
async def _files(settings: Settings) -> AsyncGenerator[Database]:
    """The database itself. Raises Precondition REBUILD_NEEDS_SQLITE, NO_JOURNAL, ALREADY_UP or DATA_IN_USE."""
    if settings.database_url is not None:
        raise Precondition(
            "REBUILD_NEEDS_SQLITE",
            "what follows from a journal is made again while nobody writes, which only the lock of SQLite proves:"
            " unset SKYAGENT_DATABASE_URL to rebuild the data folder",
        )
    if not settings.journal_path.is_file():
        there = f"there is no journal in {settings.data_dir}"
        raise Precondition("NO_JOURNAL", f"{there}: set SKYAGENT_DATA_DIR to the data directory of a mesh")
    with up_lock(settings.up_lock_path):
        async with open_database(settings.journal_path) as database:
            yield database


async def _all(services: Services) -> AsyncGenerator[str]:
    token = ""
    while True:
        page = await services.runs.ListRuns(api.ListRunsRequest(page_size=PAGE, page_token=token))
        for run in page.runs:
            yield run.run_id
        token = page.next_page_token
        if not token:
            return


def _answer(found: Verification, head_hash: bytes) -> api.VerifyRunResponse:
    return api.VerifyRunResponse(
        intact=found.bad_seq is None,
        first_bad_seq=found.bad_seq or 0,
        detail=found.reason,
        events=found.events,
        head_hash=hash_of(head_hash),
    )


def _tell_program(progress: Progress) -> None:
    print_json({"runId": progress.run_id, "run": progress.number, "of": progress.of, "events": progress.events})


def _tell_person(progress: Progress) -> None:
    last = "\n" if progress.number == progress.of else ""
    print(f"\rrun {progress.number} of {progress.of}", end=last, file=sys.stderr, flush=True)


def _print(report: Report) -> None:
    for table in report.tables:
        print_json({
            "table": table.name, "dropped": table.dropped, "rebuilt": table.rebuilt,
            "same": not table.changed, "changed": table.changed, "firstChanged": table.different,
        })  # fmt: skip
    for left in report.left_alone:
        print_json({"runId": left.run_id, "leftAlone": left.reason})
    print_json({"runs": report.runs, "events": report.events, "same": report.same})


def _show(report: Report) -> None:
    rows = [(table.name, str(table.dropped), str(table.rebuilt), _same(table)) for table in report.tables]
    print_list([], TABLES, rows, json_lines=False)
    for left in report.left_alone:
        print(f"run {left.run_id} was left as it was: {left.reason}")
    print(f"{report.events:,} events of {report.runs:,} runs")


def _same(table: Rebuilt) -> Text:
    if not table.changed:
        return Text("the same", "green")
    return plain(f"{table.changed} rows are now others, the first is {table.different}", "yellow")


def _word(found: api.VerifyRunResponse) -> Text:
    return Text("intact", "green") if found.intact else plain(found.detail, "red")
