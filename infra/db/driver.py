"""The bare driver below a connection, for statements on the hot path: SQLAlchemy takes longer with one than SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import Connection

if TYPE_CHECKING:
    import psycopg

Values = Sequence[object]


class Cursor(Protocol):
    """What the cursors of both drivers have."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> tuple[Any, ...] | None: ...


class Driver(Protocol):
    """Runs statements that both systems know; "?" marks a parameter."""

    def execute(self, sql: str, values: Values, /) -> Cursor: ...

    def executemany(self, sql: str, values: Sequence[Values], /) -> object: ...


def driver_of(connection: Connection) -> Driver:
    """The driver of a connection to either system."""
    bare = connection.connection.driver_connection
    if connection.dialect.name == "postgresql":
        return _Psycopg(cast("psycopg.Connection[tuple[Any, ...]]", bare))
    return cast("Driver", cast("sqlite3.Connection", bare))


class _Psycopg:
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def execute(self, sql: str, values: Values) -> Cursor:
        return self._connection.execute(_translated(sql), values)

    def executemany(self, sql: str, values: Sequence[Values]) -> object:
        with self._connection.cursor() as cursor:
            return cursor.executemany(_translated(sql), values)


@lru_cache
def _translated(sql: str) -> bytes:
    """The statement with psycopg's marks; as bytes, since it is a constant and no text of anybody's."""
    return sql.replace("?", "%s").encode()
