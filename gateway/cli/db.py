"""`skyagent db`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from control import moving
from control.moving import Moved, Place, Steps
from control.verifying import Checked, Looked, verify
from gateway.cli.exits import Exit
from gateway.cli.output import machine_readable, plain, print_json, print_list
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.supervisor.lock import up_lock
from infra.clock import SystemClock
from infra.db.copying import Copied, place_of, shown
from infra.settings import Settings, load_settings

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Back up, restore, verify, migrate and move the database."
)

BackupFile = Annotated[Path, typer.Argument(help="The backup: one SQLite file, whichever system it is of.")]


@app.callback()
def db() -> None:
    """Back up, restore, verify, migrate and move the database that the settings name.

    It holds missions, journals and all that follows from them. Blobs, keys and agentfs are files of the data folder:
    copy them after the database.
    """


@app.command("migrate")
def migrate(
    dry: Annotated[bool, typer.Option("--dry-run", help="Say what is missing, and change nothing.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Bring the schema to the one of this version; starting a mesh does the same. Exit code 1 while a mesh runs."""
    settings = load_settings()
    place = moving.place_in(settings)
    with _offline(settings, place, needed=not dry):
        before = moving.migrate(place, dry=dry)
    said = {"database": shown(place), "from": before.at, "to": before.wanted, "missing": before.missing, "dryRun": dry}
    if machine_readable(json_lines=json_lines):
        print_json(said)
    elif not before.missing:
        print(f"{shown(place)} is up to date: {', '.join(before.at)}")
    else:
        done = "would be applied" if dry else "applied"
        print(f"{shown(place)}: {', '.join(before.missing)} {done} on {', '.join(before.at) or 'an empty database'}")


@app.command("backup")
def backup(file: BackupFile, json_lines: Json = False) -> None:  # noqa: FBT002
    """Write everything into one new file, as one moment saw it, while the mesh goes on."""
    place = moving.place_in(load_settings())
    with _interruptible():
        _tell(moving.backup(place, file.absolute(), _steps(json_lines=json_lines)), json_lines=json_lines)


@app.command("restore")
def restore(
    file: BackupFile,
    replace: Annotated[bool, typer.Option("--replace", help="Also where there are missions already.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Put a backup where the database is, while no mesh runs; all of it or, killed half-way, nothing.

    A new log generation begins: every run is claimed anew, and one whose workers know more than the backup waits as
    LOG_BEHIND for a person. A SQLite file that is replaced is kept beside the new one.
    """
    settings = load_settings()
    place = moving.place_in(settings)
    with _interruptible(), _offline(settings, place):
        steps = _steps(json_lines=json_lines)
        moved = moving.restore(file.absolute(), place, steps, SystemClock(), replace=replace)
    _tell(moved, json_lines=json_lines)


@app.command("copy")
def copy(
    to: Annotated[str, typer.Option("--to", help="postgresql://user:password@host:port/name, or sqlite:////path.")],
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Move to another database system while no mesh runs, and go on there: set SKYAGENT_DATABASE_URL afterwards.

    Every row is counted and every chain verified before anything is kept. The source stays as it is; do not start it
    again, since workers that have met the copy do not obey it any more.
    """
    settings, target = load_settings(), place_of(to)
    source = moving.place_in(settings)
    with _interruptible(), _offline(settings, source):
        perform(moving.require_unused(target, SystemClock(), settings.ownership))
        moved = moving.copy(source, target, _steps(json_lines=json_lines), SystemClock())
    _tell(moved, json_lines=json_lines)


@app.command("verify")
def verify_all(json_lines: Json = False) -> None:  # noqa: FBT002
    """Read everything: chains, heads, projections, what rows say of each other, and every byte that an event names.

    A mesh may run meanwhile. Exit code 1 when something is not as it was written; each is named.
    """
    settings = load_settings()
    as_json = machine_readable(json_lines=json_lines)
    with _interruptible(), moving.seen(moving.place_in(settings)) as connection:
        found = verify(connection, settings.blobs_dir, _tell_looked if not as_json else _quiet)
    if as_json:
        for hurt in found.hurts:
            print_json({"hurt": hurt.what, "where": hurt.where, "detail": hurt.detail})
        print_json({"runs": found.runs, "events": found.events, "blobs": found.blobs, "whole": not found.hurts})
    else:
        _show(found)
    if found.hurts:
        raise typer.Exit(Exit.FAILED)


def _show(found: Checked) -> None:
    if found.hurts:
        rows = [(hurt.where, Text(hurt.what, "red"), plain(hurt.detail)) for hurt in found.hurts]
        print_list([], ("where", "what", "what is wrong"), rows, json_lines=False)
    word = f"{len(found.hurts)} things are not as they were written" if found.hurts else "all of it is whole"
    print(f"{found.runs:,} runs, {found.events:,} events, {found.blobs:,} blobs: {word}")


def _tell(moved: Moved, *, json_lines: bool) -> None:
    if machine_readable(json_lines=json_lines):
        said = {"from": moved.source, "to": moved.target, "rows": dict(moved.rows)}
        print_json(said | ({"logGeneration": moved.log_generation} if moved.log_generation else {}))
        return
    rows = [(table, f"{count:,}") for table, count in moved.rows.items()]
    print_list([], ("table", "rows"), rows, json_lines=False)
    generation = f", log generation {moved.log_generation} begins" if moved.log_generation else ""
    print(f"{moved.source} → {moved.target}{generation}")


def _steps(*, json_lines: bool) -> Steps:
    if machine_readable(json_lines=json_lines):
        return Steps(_tell_program(), _quiet)
    return Steps(_tell_copied, _tell_looked)


def _tell_program() -> Callable[[Copied], None]:
    """A line for each table, and not for each of its batches."""

    def tell(copied: Copied) -> None:
        if copied.done == copied.of:
            print_json({"copied": copied.table or "pages", "done": copied.done})

    return tell


def _tell_copied(copied: Copied) -> None:
    _progress(f"{copied.table or 'pages'} {copied.done:,} of {copied.of:,}", last=copied.done == copied.of)


def _tell_looked(looked: Looked) -> None:
    _progress(f"run {looked.number} of {looked.of} verified", last=looked.number == looked.of)


def _quiet(_looked: Looked) -> None:
    """A program is told what was found."""


def _progress(text: str, *, last: bool) -> None:
    print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)


@contextmanager
def _offline(settings: Settings, place: Place, *, needed: bool = True) -> Generator[None]:
    """While this lasts no mesh begins here; Precondition ALREADY_UP or DATA_IN_USE when one runs."""
    with ExitStack() as stack:
        if needed:
            stack.enter_context(up_lock(settings.up_lock_path))
            perform(moving.require_unused(place, SystemClock(), settings.ownership))
        yield


@contextmanager
def _interruptible() -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None
