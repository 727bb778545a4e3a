"""SQLite connections as this system needs them.

The driver is pysqlite3 and not the standard library's module, because SQLite before 3.51.3 can corrupt a WAL
that several connections checkpoint (https://sqlite.org/wal.html, "the WAL-reset bug").
"""

from __future__ import annotations

import sqlite3
from importlib import import_module
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import NullPool, QueuePool

_driver = import_module("pysqlite3.dbapi2")

# pysqlite3 is the standard module built against a newer SQLite: its types are those of `sqlite3`.
DriverError = cast("type[sqlite3.Error]", _driver.Error)
SQLITE_VERSION = cast("str", _driver.sqlite_version)

_FIRST_SAFE = (3, 51, 3)
_WAL_PAGES_BEFORE_CHECKPOINT = 4000
_CACHE_KIB = 65536


def driver_is_safe() -> bool:
    """Whether the SQLite in use has the fix of the WAL-reset bug."""
    return tuple(int(part) for part in SQLITE_VERSION.split(".")) >= _FIRST_SAFE


def writing_engine(path: Path, *, busy_ms: int, synchronous: str) -> Engine:
    """For the one connection that writes, migrates and checkpoints."""
    pragmas = (
        "journal_mode=WAL",
        f"synchronous={synchronous}",
        f"busy_timeout={busy_ms}",
        "foreign_keys=ON",
        f"wal_autocheckpoint={_WAL_PAGES_BEFORE_CHECKPOINT}",
        f"cache_size=-{_CACHE_KIB}",
    )
    engine = create_engine(_url(path), module=_driver, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    return _with_pragmas(engine, pragmas)


def reading_engine(path: Path, *, busy_ms: int, connections: int) -> Engine:
    """For short-lived readers; they can neither write nor checkpoint."""
    pragmas = (f"busy_timeout={busy_ms}", "query_only=ON", "wal_autocheckpoint=0")
    engine = create_engine(
        _url(path),
        module=_driver,
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        isolation_level="AUTOCOMMIT",
    )
    return _with_pragmas(engine, pragmas)


def driver_connection(connection: Connection) -> sqlite3.Connection:
    """The bare driver connection below, for the hot path."""
    return cast("sqlite3.Connection", connection.connection.driver_connection)


def _url(path: Path) -> str:
    return f"sqlite:///{path}"


def _with_pragmas(engine: Engine, pragmas: tuple[str, ...]) -> Engine:
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # Transactions are begun and ended by us alone, never by the driver.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", configure)
    return engine
