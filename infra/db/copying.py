"""A whole database as one SQLite file: what a backup is, and the way from one system to the other.

The file has every row as one moment saw it, while others went on writing: SQLite's online backup under one read
transaction (https://sqlite.org/backup.html), or COPY of every table in one REPEATABLE READ transaction of PostgreSQL.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TypeVar, cast

import psycopg
from psycopg import sql
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from infra.db.engine import DriverError, writing_engine
from infra.db.failure import corrupt, storage_failure
from infra.db.migrate import upgrade
from infra.db.postgres import driver_connection, name_of
from infra.disk import explained, sync_folder
from infra.errors import DataLoss, InvalidArgument, NotFound, Precondition, Violation

_open = cast("type[sqlite3.Connection]", import_module("pysqlite3.dbapi2").connect)

_PAGES = 4096
"""Of a SQLite file, between two words on how far it is."""
_ROWS = 2000
_OF_ALEMBIC = "alembic_version"
_PLAIN = (16, 17, 20, 21, 23, 25, 701, 1043)
"""Types whose values both systems have: bool, bytea, integers, text, double precision. All others travel as text."""
_TEXT = 25

Row = tuple[object, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Copied:
    """How far a copy is: rows of a table, or pages of a file when `table` is empty."""

    table: str
    done: int
    of: int


Told = Callable[[Copied], None]


@contextmanager
def drafted(target: Path, *, replace: bool = False) -> Generator[Path]:
    """A file beside `target` that takes its name once the block has ended well, whole and on disk; else it goes.

    Raises Precondition TARGET_NOT_EMPTY when there is something already, Exhausted DISK_FULL, DATA_UNWRITABLE.
    """
    if target.exists() and not replace:
        raise Precondition(
            "TARGET_NOT_EMPTY", f"{target} is there already: name another file, or move that one away", path=str(target)
        )
    draft = target.with_name(f"{target.name}.part")
    with explained(draft):
        draft.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with _explained_by(draft):
            yield draft
            with explained(draft):
                descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                draft.replace(target)
                sync_folder(target.parent)
    finally:
        for leftover in (draft, *(draft.with_name(draft.name + more) for more in ("-wal", "-shm", "-journal"))):
            leftover.unlink(missing_ok=True)


def copy_file(source: Path, draft: Path, told: Told) -> None:
    """A sound copy of a SQLite database that others may be writing to.

    Raises NotFound NO_DATABASE, DataLoss DATABASE_CORRUPT.
    """
    if not source.is_file():
        raise NotFound("NO_DATABASE", f"there is no database at {source}", path=str(source))

    def progress(_status: int, left: int, total: int) -> None:
        told(Copied("", total - left, total))

    with (
        _explained_by(source),
        closing(_open(f"{source.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as old,
        closing(_open(str(draft), isolation_level=None)) as new,
    ):
        # Under one read transaction the copy never begins anew, however much is written meanwhile.
        old.execute("BEGIN")
        old.execute("SELECT count(*) FROM sqlite_master").fetchone()
        old.backup(new, pages=_PAGES, progress=progress)
        new.execute("PRAGMA journal_mode=DELETE").fetchone()
        (verdict,) = new.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise corrupt(source, verdict)


@contextmanager
def file_connection(path: Path) -> Generator[Connection]:
    """A transaction on a file that nobody else has; committed and closed when the block has ended well."""
    engine = writing_engine(path, busy_ms=1000, synchronous="FULL")
    with _explained_by(path), engine.connect() as connection:
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        yield connection
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("PRAGMA journal_mode=DELETE")


def draw(server: Connection, draft: Path, told: Told) -> None:
    """Copies what a transaction on PostgreSQL sees into a new file of the same schema."""
    with file_connection(draft) as connection:
        upgrade(connection)
        file = cast("sqlite3.Connection", connection.connection.driver_connection)
        copier = driver_connection(server)
        for table, columns in tables_of(file).items():
            total = _count(copier, table)
            file.execute(f"DELETE FROM {_quoted(table)}")
            insert = f"INSERT INTO {_quoted(table)} ({', '.join(map(_quoted, columns))}) VALUES ({_marks(columns)})"
            done = 0
            for rows in _batches(_drawn(copier, table, columns)):
                file.executemany(insert, rows)
                done += len(rows)
                told(Copied(table, done, total))
            _same(table, total, done)


def pour(draft: Path, server: Connection, told: Told) -> None:
    """Puts what a file holds in the place of all rows of a PostgreSQL of the same schema, inside a transaction on it.

    Raises InvalidArgument for text that PostgreSQL cannot hold.
    """
    copier = driver_connection(server)
    with closing(_open(str(draft))) as file, _explained_by(draft):
        tables = tables_of(file)
        copier.execute(sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(map(sql.Identifier, tables))))
        for table, columns in tables.items():
            (total,) = file.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()
            rows = file.execute(f"SELECT {', '.join(map(_quoted, columns))} FROM {_quoted(table)}")
            try:
                _pour_table(
                    copier, table, columns, rows, lambda done, table=table, of=total: told(Copied(table, done, of))
                )
            except psycopg.DataError as bad:
                raise InvalidArgument(
                    Violation(table, f"PostgreSQL cannot hold a row of it: {str(bad).splitlines()[0]}"),
                    reason="ROW_REFUSED",
                ) from bad
            _same(table, total, _count(copier, table))


def tables_of(file: sqlite3.Connection) -> Mapping[str, tuple[str, ...]]:
    """The columns of every table that holds rows of ours, by name."""
    found = file.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    )
    names = [name for (name,) in found.fetchall() if name != _OF_ALEMBIC]
    return {name: tuple(column[1] for column in file.execute(f"PRAGMA table_info({_quoted(name)})")) for name in names}


def counts_of_file(path: Path) -> Mapping[str, int]:
    """How many rows each table of a file has."""
    with closing(_open(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as file, _explained_by(path):
        return {
            table: int(file.execute(f"SELECT count(*) FROM {_quoted(table)}").fetchone()[0])
            for table in tables_of(file)
        }


def in_one_snapshot(server: Connection) -> None:
    """Begins a transaction that sees one moment and may take its time."""
    server.exec_driver_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    server.exec_driver_sql("SET LOCAL statement_timeout = 0")
    server.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")


def place_of(address: str) -> Path | URL:
    """A file from sqlite:///PATH, or a PostgreSQL; InvalidArgument for anything else."""
    try:
        url = make_url(address)
    except ArgumentError:
        url = None
    if url is not None and url.get_backend_name() == "sqlite" and url.database:
        return Path(url.database).absolute()
    if url is not None and url.get_backend_name() == "postgresql":
        return url.set(drivername="postgresql+psycopg")
    forms = "postgresql://user:password@host:port/name or sqlite:////path/to/journal.db"
    raise InvalidArgument(Violation("--to", f"it must have the form {forms}"))


def shown(place: Path | URL) -> str:
    """The place as messages name it, without a password."""
    return str(place) if isinstance(place, Path) else name_of(place)


def _drawn(copier: psycopg.Connection[Row], table: str, columns: Sequence[str]) -> Iterator[Row]:
    asked = "SELECT attname, atttypid::int FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
    types = dict(cast("list[tuple[str, int]]", copier.execute(asked, (f'"{table}"',)).fetchall()))
    chosen = [
        sql.SQL("{}" if types[column] in _PLAIN else "{}::text").format(sql.Identifier(column)) for column in columns
    ]
    statement = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT BINARY)").format(
        sql.SQL(", ").join(chosen), sql.Identifier(table)
    )
    with copier.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([types[column] if types[column] in _PLAIN else _TEXT for column in columns])
        yield from copy.rows()


def _pour_table(
    copier: psycopg.Connection[Row],
    table: str,
    columns: Sequence[str],
    rows: sqlite3.Cursor,
    told: Callable[[int], None],
) -> None:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), names)
    done = 0
    with copier.cursor() as cursor, cursor.copy(statement) as copy:
        for batch in _batches(iter(rows)):
            for row in batch:
                copy.write_row(row)
            done += len(batch)
            told(done)


def _count(copier: psycopg.Connection[Row], table: str) -> int:
    found = copier.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    return int(cast("int", found[0])) if found else 0


def _same(table: str, expected: int, found: int) -> None:
    if expected != found:
        raise DataLoss("COPY_INCOMPLETE", f"{table} has {expected} rows and {found} arrived: nothing was changed")


def _batches(rows: Iterator[T]) -> Iterator[list[T]]:
    while batch := list(islice(rows, _ROWS)):
        yield batch


def _quoted(name: str) -> str:
    return f'"{name}"'


def _marks(columns: Sequence[str]) -> str:
    return ", ".join("?" for _ in columns)


@contextmanager
def _explained_by(path: Path) -> Generator[None]:
    """Errors of SQLite as a person should see them."""
    try:
        yield
    except (DriverError, DBAPIError) as error:
        failure = storage_failure(error, path)
        if failure is None:
            raise
        raise failure from error
