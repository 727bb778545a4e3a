"""PostgreSQL: a server that several processes share. Each process has one connection that writes.

psycopg is the driver because it works in threads: what a store does inside a transaction is then the same code on both
systems. A NOTIFY takes a lock of the whole server at commit, so there is at most one a batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import cast

import psycopg
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool, QueuePool

from infra.db import arrays
from infra.db.backend import Fate
from infra.db.database import EVERYTHING, Database, DatabaseSettings, System, serving
from infra.db.driver import driver_of
from infra.db.failure import end_process
from infra.db.migrate import upgrade
from infra.db.postgres_failure import explained, fate, unreachable
from infra.db.wakes import RedisWakes
from infra.errors import InvalidArgument, Precondition, SkyError, Violation
from infra.metrics import NO_METRICS, Metrics

CHANNEL = "skyagent"
_MIGRATING = 0x5C7A6E7
"""Key of the advisory lock under which one process at a time migrates."""
_PAYLOAD_BYTES = 7900
_CONNECT_SECONDS = 5
_NEWS_PAUSE = 0.5
_OLDEST = 15
_SESSION = " ".join(
    f"-c {setting}"
    for setting in (
        "synchronous_commit=on",
        "statement_timeout=30s",
        "lock_timeout=10s",
        "idle_in_transaction_session_timeout=60s",
    )
)
_REQUIRED = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_apply")}


class PostgresBackend:
    """Implements infra.db.backend.Backend over the one writing connection of this process."""

    def __init__(self, engine: Engine, who: str, wakes: RedisWakes | None = None) -> None:
        """`who` marks this process's own news, which it need not hear; `wakes` carries them in place of NOTIFY."""
        self._engine = engine
        self._who = who
        self._wakes = wakes
        self._committing: frozenset[str] = frozenset()
        self._name = name_of(engine.url)
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = connected(self._engine)
        return self._connection

    def begin(self) -> None:
        try:
            self.connection.exec_driver_sql("BEGIN")
        except BaseException:
            self.close()
            raise

    def commit(self) -> None:
        self.connection.exec_driver_sql("COMMIT")
        if self._wakes is not None:
            self._wakes.say(self._committing)

    def rollback(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.exec_driver_sql("ROLLBACK")
        except Exception:  # noqa: BLE001 -- whatever it was, the next transaction begins on another connection
            self.close()

    def announce(self, topics: frozenset[str]) -> None:
        if self._wakes is not None:  # said once it is committed, and nobody waits for that
            self._committing = topics
            return
        for payload in _payloads(self._who, sorted(topics)):
            self.connection.exec_driver_sql("SELECT pg_notify(%s, %s)", (CHANNEL, payload))

    def scrub(self) -> bool:
        """Dead rows are removed from their pages. The server's own log and backups are its operator's to let go of."""
        self.connection.exec_driver_sql("SET statement_timeout = 0")
        try:
            self.connection.exec_driver_sql("VACUUM")
        finally:
            self.connection.exec_driver_sql("RESET statement_timeout")
        return True

    def fate(self, error: BaseException) -> Fate:
        return fate(error)

    def explained(self, error: BaseException) -> SkyError:
        return explained(error, self._name) or self.outcome_unknown()

    def outcome_unknown(self) -> SkyError:
        return unreachable(self._name, "the connection was lost while something was being written")

    def close(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.invalidate()
            with suppress(Exception):
                self._connection.close()
            self._connection = None


@asynccontextmanager
async def open_postgres(
    address: str,
    *,
    who: str,
    wakes: RedisWakes | None = None,
    settings: DatabaseSettings | None = None,
    on_fatal: Callable[[SkyError], None] = end_process,
    metrics: Metrics = NO_METRICS,
) -> AsyncGenerator[Database]:
    """Check, migrate and serve a database of a PostgreSQL server until the block ends.

    `address` is a URL (postgresql://user:password@host:port/name). Raises InvalidArgument when it is none, Unavailable
    DATABASE_UNREACHABLE, Precondition DATABASE_UNSAFE when a commit could be lost there, or DATABASE_TOO_NEW.
    """
    url, chosen = parsed(address), settings or DatabaseSettings()
    system = System(
        name_of(url),
        shared=True,
        begin_reading="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        explained=partial(explained, name=name_of(url)),
        now_ms=now_ms,
        news=partial(news, url, who) if wakes is None else wakes.news,
    )
    backend = PostgresBackend(_engine(url, NullPool), who, wakes)
    await asyncio.to_thread(_prepare, backend)
    readers = _engine(url, QueuePool, pool_size=chosen.readers, max_overflow=0, pool_pre_ping=True)
    try:
        async with serving(system, backend, readers, chosen, on_fatal, metrics) as database:
            yield database
    finally:
        await asyncio.to_thread(backend.close)


@contextmanager
def connection_to(url: URL) -> Generator[Connection]:
    """One connection in autocommit, for a command that ends; errors of the server as a person should see them."""
    try:
        connection = connected(_engine(url, NullPool))
        try:
            yield connection
        finally:
            connection.close()
    except (DBAPIError, psycopg.Error) as error:
        failure = explained(error, name_of(url))
        if failure is None:
            raise
        raise failure from error


@contextmanager
def migrating(url: URL) -> Generator[Connection]:
    """A transaction in which nobody else migrates; it may take its time."""
    with connection_to(url) as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
        yield connection
        connection.exec_driver_sql("COMMIT")


def parsed(address: str) -> URL:
    """The address as SQLAlchemy has it; InvalidArgument for anything but a PostgreSQL URL."""
    try:
        url = make_url(address)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "postgresql":
        form = "postgresql://user:password@host:port/name"
        raise InvalidArgument(Violation("SKYAGENT_DATABASE_URL", f"it must have the form {form}"))
    return url.set(drivername="postgresql+psycopg")


def name_of(url: URL) -> str:
    """The address as it may be shown: without the password."""
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def now_ms(connection: Connection) -> int:
    """Milliseconds since the Unix epoch by the server's clock."""
    asked = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    found = driver_of(connection).execute(asked, ()).fetchone()
    return int(found[0]) if found else 0


async def news(url: URL, who: str) -> AsyncGenerator[frozenset[str]]:
    """Topics that other processes announce. After every break it says EVERYTHING, since something may be lost."""
    conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(
                conninfo, autocommit=True, connect_timeout=_CONNECT_SECONDS
            ) as connection:
                await connection.execute(f"LISTEN {CHANNEL}")
                yield frozenset((EVERYTHING,))
                async for notice in connection.notifies():
                    sender, _, topics = notice.payload.partition("|")
                    if sender != who:
                        yield frozenset(topics.split(","))
        except psycopg.OperationalError:
            await asyncio.sleep(_NEWS_PAUSE)  # noqa: TID251 -- a pause between tries to connect is real time


def connected(engine: Engine) -> Connection:
    """A connection to a server that keeps what it has committed.

    Raises Precondition DATABASE_UNSAFE, or the driver's error.
    """
    connection = engine.connect()
    try:
        _require_safe(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _require_safe(connection: Connection) -> None:
    name = name_of(connection.engine.url)
    version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one()) // 10_000
    if version < _OLDEST:
        raise Precondition("DATABASE_TOO_OLD", f"{name} runs PostgreSQL {version}: {_OLDEST} or newer is needed")
    for setting, allowed in _REQUIRED.items():
        value = str(connection.exec_driver_sql(f"SHOW {setting}").scalar_one())
        if value not in allowed:
            raise Precondition(
                "DATABASE_UNSAFE",
                f"{name} has {setting}={value}, so a crash could lose what was acknowledged: set {setting} to"
                f" {allowed[0]} and restart the server",
                setting=setting,
            )


def _prepare(backend: PostgresBackend) -> None:
    try:
        backend.begin()
        backend.connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
        upgrade(backend.connection)
        backend.commit()
    except DBAPIError as error:
        backend.close()
        raise backend.explained(error) from error
    except BaseException:
        backend.close()
        raise


def _engine(url: URL, pool: type[NullPool | QueuePool], **sizes: int | bool) -> Engine:
    connect = {
        "connect_timeout": _CONNECT_SECONDS,
        "options": _SESSION,
        "application_name": "skyagent",
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    engine = create_engine(url, poolclass=pool, isolation_level="AUTOCOMMIT", connect_args=connect, **sizes)
    event.listen(engine, "connect", _prepare_often_used)
    return engine


def _prepare_often_used(connection: psycopg.Connection[object], _record: object) -> None:
    connection.prepare_threshold = 2
    arrays.register(connection)


def _payloads(who: str, topics: list[str]) -> Iterator[str]:
    """The topics in as few notices as their size allows; too many to name become EVERYTHING."""
    said = f"{who}|{','.join(topics)}"
    if topics:
        yield said if len(said) <= _PAYLOAD_BYTES else f"{who}|{EVERYTHING}"


def driver_connection(connection: Connection) -> psycopg.Connection[tuple[object, ...]]:
    """The bare driver connection below, for the hot path."""
    return cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
