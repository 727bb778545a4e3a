"""Where a control plane's database is, and how all of it gets somewhere else: backup, restore, and to another system.

Only rows move. Blobs, keys and agentfs are files of the data folder: copied after the database they are whole, because
bytes are stored before an event names them and never change.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import sqlalchemy as sa
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from control.journal.queries import runs as queries
from control.journal.run import Node
from control.journal.schema import runs
from control.mission_api.store import missions
from control.verifying import Looked, verify
from infra.clock import Clock
from infra.db.copying import (
    Told,
    copy_file,
    counts_of_file,
    drafted,
    draw,
    file_connection,
    in_one_snapshot,
    pour,
    shown,
)
from infra.db.engine import reading_engine
from infra.db.failure import storage_failure
from infra.db.migrate import upgrade
from infra.db.postgres import connection_to, migrating, parsed
from infra.db.revisions import Standing, require_present, standing
from infra.disk import explained, held
from infra.errors import DataLoss, NotFound, Precondition, SkyError
from infra.settings import OwnershipSettings, Settings

Place = Path | URL

_LOGS = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file, and plays into whatever has its name."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What stands where now: rows by table, and the log generation that begins there (0: it goes on as it was)."""

    source: str
    target: str
    rows: Mapping[str, int]
    log_generation: int = 0


@dataclass(frozen=True, slots=True)
class Steps:
    """Who is told how far it is."""

    copied: Told
    looked: Callable[[Looked], None]


def place_in(settings: Settings) -> Place:
    """Where the settings say that the database is."""
    address = settings.database_url
    return settings.journal_path if address is None else parsed(address.get_secret_value())


@contextmanager
def seen(place: Place) -> Generator[Connection]:
    """A transaction that sees one moment of a database, beside whoever writes to it.

    Raises NotFound NO_DATABASE, Unavailable DATABASE_UNREACHABLE, Precondition DATABASE_TOO_OLD or DATABASE_TOO_NEW.
    """
    with _file_seen(place) if isinstance(place, Path) else connection_to(place) as connection:
        if not isinstance(place, Path):
            in_one_snapshot(connection)
        require_present(connection, shown(place))
        yield connection


def migrate(place: Place, *, dry: bool) -> Standing:
    """Brings a database to the present schema, or only says what would be done; tells how it stood before.

    Raises Precondition DATA_IN_USE while a mesh has the file, and what `seen` raises.
    """
    with ExitStack() as stack:
        if not isinstance(place, Path):
            connection = stack.enter_context(migrating(place))
        elif not place.is_file():
            raise NotFound("NO_DATABASE", f"there is no database at {place}", path=str(place))
        elif dry:
            connection = stack.enter_context(_file_seen(place))
        else:
            stack.enter_context(held(_lock(place)))
            connection = stack.enter_context(file_connection(place))
        before = standing(connection)
        if not dry:
            upgrade(connection)
    return before


def backup(source: Place, file: Path, told: Steps) -> Moved:
    """One file with everything as one moment saw it, while the mesh goes on. It appears whole or not at all.

    Raises Precondition TARGET_NOT_EMPTY when the file exists.
    """
    with drafted(file) as draft:
        _draft(source, draft, told)
    return Moved(shown(source), str(file), counts_of_file(file))


def restore(file: Path, target: Place, told: Steps, clock: Clock, *, replace: bool) -> Moved:
    """Puts a backup where the database is. A new log generation begins, and every run is claimed anew.

    What a SQLite file held before is kept beside it. All or nothing, on either system.

    Raises Precondition TARGET_NOT_EMPTY unless it may be replaced, DATA_IN_USE; DataLoss BACKUP_DAMAGED.
    """
    if not file.is_file():
        raise NotFound("NO_BACKUP", f"there is no backup at {file}", path=str(file))
    return _put(file, target, told, clock, replace=replace)


def copy(source: Place, target: Place, told: Steps, clock: Clock) -> Moved:
    """Moves a control plane that does not run to another system; the source stays as it is.

    A new log generation begins there, so that workers obey the copy and no longer the source.

    Raises Precondition DATA_IN_USE while a mesh has the source, TARGET_NOT_EMPTY, and what `restore` raises.
    """
    if shown(source) == shown(target):
        raise Precondition("SAME_PLACE", f"{shown(source)} is where the database is already: name another place")
    with ExitStack() as stack:
        if isinstance(source, Path) and source.is_file():
            stack.enter_context(held(_lock(source)))
        return _put(source, target, told, clock, replace=False)


async def require_unused(place: Place, clock: Clock, ownership: OwnershipSettings) -> None:
    """Raises Precondition DATA_IN_USE when a node of a PostgreSQL still beats; of a file its lock tells."""
    if isinstance(place, Path) or not (before := _beats(place)):
        return
    await clock.sleep(ownership.ttl)
    after = _beats(place)
    living = sorted(node.node_id for node, beat in after.items() if beat != before.get(node))
    if living:
        raise Precondition(
            "DATA_IN_USE", f"{shown(place)} is in use by {', '.join(living)}: stop every node first", path=shown(place)
        )


def _put(source: Place, target: Place, told: Steps, clock: Clock, *, replace: bool) -> Moved:
    with ExitStack() as stack:
        if isinstance(target, Path):
            with explained(target.parent):
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            stack.enter_context(held(_lock(target)))
            before = _generation_of_file(target, replace=replace)
            work = stack.enter_context(drafted(target, replace=True))
        else:
            work = Path(stack.enter_context(TemporaryDirectory(prefix="skyagent-"))) / "draft.db"
            before = _generation_at(target)
        _draft(source, work, told)
        # Above whatever began here before, also when the same backup was restored once already.
        generation = _prepared(work, max(before, clock.now_ms() // 1000), told)
        rows = counts_of_file(work)
        if isinstance(target, Path):
            _put_aside(target, clock)
        else:
            _pour(work, target, told, replace=replace)
    return Moved(shown(source), shown(target), rows, generation)


def _draft(source: Place, draft: Path, told: Steps) -> None:
    if isinstance(source, Path):
        copy_file(source, draft, told.copied)
    else:
        with seen(source) as connection:
            draw(connection, draft, told.copied)


def _prepared(work: Path, above: int, told: Steps) -> int:
    """Brings a draft to the present schema, looks whether its journals are sound, and begins a new generation."""
    with file_connection(work) as connection:
        if not standing(connection).at:
            raise DataLoss("NO_BACKUP", "the file is no database of skyagent: give one that `skyagent db backup` made")
        upgrade(connection)
        hurts = [hurt for hurt in verify(connection, None, told.looked).hurts if hurt.what == "journal"]
        if hurts:  # all else follows from journals, and `verify` tells of it
            raise DataLoss(
                "BACKUP_DAMAGED",
                f"{len(hurts)} journals in it are not as they were written, first that of run {hurts[0].where}:"
                f" {hurts[0].detail}. Nothing was changed",
            )
        return queries.begin_generation(connection, above)


def _pour(work: Path, target: URL, told: Steps, *, replace: bool) -> None:
    with migrating(target) as connection:
        upgrade(connection)
        if not replace and _holds_something(connection):
            raise _not_empty(target)
        pour(work, connection, told.copied)


def _generation_of_file(target: Path, *, replace: bool) -> int:
    """The log generation of what is there; 0 when there is nothing, or only what cannot be read and is replaced."""
    if not target.is_file() or not target.stat().st_size:
        return 0
    try:
        with _file_seen(target) as connection:
            if not standing(connection).at:
                return 0
            if not replace and _holds_something(connection):
                raise _not_empty(target)
            return queries.log_generation(connection)
    except DataLoss:
        if replace:
            return 0
        raise


def _generation_at(target: URL) -> int:
    """The same of a PostgreSQL."""
    with connection_to(target) as connection:
        return queries.log_generation(connection) if standing(connection).at else 0


def _put_aside(target: Path, clock: Clock) -> None:
    """Keeps the file that is replaced, under another name, with all that its log still held.

    It gets a second name, so that the target is never missing: the draft takes its place in one step. A log that is
    left would be played by SQLite into whatever stands in that place.
    """
    kept = target.with_name(f"{target.name}.replaced-{clock.now_ms()}")
    if target.is_file() and target.stat().st_size:
        with suppress(DataLoss), file_connection(target):
            pass  # closing it empties the log into the file; of one that is damaged, the log is kept beside it
        kept.hardlink_to(target)
    for log in _LOGS:
        beside = target.with_name(target.name + log)
        if beside.is_file():
            beside.replace(kept.with_name(kept.name + log))


def _holds_something(connection: Connection) -> bool:
    return any(connection.execute(sa.select(sa.exists().select_from(table))).scalar_one() for table in (runs, missions))


def _not_empty(target: Place) -> Precondition:
    return Precondition(
        "TARGET_NOT_EMPTY",
        f"{shown(target)} holds missions already: name an empty database, or say --replace to a restore",
        path=shown(target),
    )


def _beats(place: URL) -> Mapping[Node, int]:
    with connection_to(place) as connection:
        if not standing(connection).at:
            return {}
        return {node: pulse.beat for node, pulse in queries.beats(connection).items()}


@contextmanager
def _file_seen(path: Path) -> Generator[Connection]:
    if not path.is_file():
        raise NotFound("NO_DATABASE", f"there is no database at {path}", path=str(path))
    engine = reading_engine(path, busy_ms=5000, connections=1)
    try:
        with closing(engine.connect()) as connection:
            connection.exec_driver_sql("BEGIN")
            yield connection
    except DBAPIError as error:
        failure: SkyError | None = storage_failure(error, path)
        if failure is None:
            raise
        raise failure from error
    finally:
        engine.dispose()


def _lock(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
