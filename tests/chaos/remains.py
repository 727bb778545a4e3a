"""What a campaign's processes left on this machine: the workers' journals, and whatever should be gone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from execution.attempts import State
from infra.disk import held
from infra.errors import SkyError
from infra.processes import alive, find_marked
from infra.settings import Settings


@dataclass(frozen=True)
class Attempt:
    """One attempt at a step."""

    run_id: str
    step_id: str
    attempt: int


@dataclass(frozen=True)
class Remains:
    """Attempts whose outcome a worker ever recorded, and those whose outcome it still holds."""

    told: frozenset[Attempt]
    held: frozenset[Attempt]


def remains(settings: Settings, recorded: Iterable[Attempt]) -> Remains:
    """What the workers' journals say. A row that was let go of proves an outcome, too."""
    return remains_of([row for folder in _workers(settings) for row in _rows(folder)], recorded)


def remains_of(rows: Iterable[tuple[Attempt, State]], recorded: Iterable[Attempt]) -> Remains:
    """The same from the rows of all workers' journals."""
    rows = list(rows)
    held_now = frozenset(attempt for attempt, state in rows if state is not State.RELEASED)
    let_go = frozenset(attempt for attempt, state in rows if state is State.RELEASED)
    return Remains(frozenset(recorded) | let_go | held_now, held_now)


def leftovers(settings: Settings, marker: str) -> Iterator[str]:
    """Processes, locks and folders that nobody will ever tidy away. Nothing of the campaign may run any more."""
    for process in find_marked(marker) if marker else ():
        if alive(process):
            yield f"process {process.pid} still runs"
    for lock in sorted(settings.data_dir.rglob("*.lock")):
        try:
            with held(lock):
                pass
        except SkyError as taken:
            yield f"{lock} is held: {taken}"
    staging = settings.blobs_dir / "staging"
    yield from (f"{draft} was never stored" for draft in (staging.iterdir() if staging.is_dir() else ()))
    for worker in _workers(settings):
        yield from _unswept(worker)


def _unswept(worker: Path) -> Iterator[str]:
    """Evidence is kept for outcomes that are held, and for nothing else."""
    wanted = {(a.run_id, f"{a.step_id}.{a.attempt}") for a, state in _rows(worker) if state is not State.RELEASED}
    for folder in sorted((worker / "spool").glob("*/*")):
        if (folder.parent.name, folder.name) not in wanted:
            yield f"{folder} is evidence of nothing that is held"


def _workers(settings: Settings) -> list[Path]:
    return sorted(path.parent for path in settings.workers_dir.glob("*/journal.db"))


def _rows(folder: Path) -> list[tuple[Attempt, State]]:
    with closing(sqlite3.connect(folder / "journal.db")) as database:
        return rows_in(database)


def rows_in(database: sqlite3.Connection) -> list[tuple[Attempt, State]]:
    """The attempts that a worker's journal knows."""
    found = database.execute("SELECT run_id, step_id, attempt, state FROM steps").fetchall()
    return [(Attempt(run_id, step_id, attempt), State(state)) for run_id, step_id, attempt, state in found]
