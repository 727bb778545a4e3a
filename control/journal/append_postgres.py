"""The hot path on PostgreSQL: all plain appends of a batch in one statement, on the bare driver connection.

The statement locks the runs in the order of their ids, so that no two processes wait for each other, and adds events
only to those that are where their owner takes them to be. What it left out, and what touches approvals or commands, is
looked at one by one, as is the last append of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, cast

from sqlalchemy import Connection

from control.journal.append import Append
from control.journal.append_careful import write
from control.journal.appending import (
    INSERT_EVENT,
    EventRow,
    Heads,
    Written,
    ends,
    extended,
    publish,
    rows_of,
    topics,
)
from control.journal.errors import RunNotFound
from control.journal.hub import Hub
from infra.db.arrays import bigints, booleans, byte_strings, integers, texts
from infra.db.driver import Driver, driver_of
from infra.db.postgres import driver_connection
from infra.errors import SkyError

if TYPE_CHECKING:
    import psycopg

_HEADS = "SELECT run_id, head_hash FROM runs WHERE run_id = ANY(%b::text[])"
_LOCK = "SELECT 1 FROM runs WHERE run_id = ? FOR UPDATE"
_BATCH = """
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(%b::text[], %b::int8[], %b::int8[], %b::int8[], %b::bytea[], %b::int8[], %b::bytea[])
        AS a(run_id, epoch, expected, control_gen, prev_hash, last_seq, last_hash)),
held AS MATERIALIZED (
    SELECT r.run_id FROM runs r JOIN asked a ON r.run_id = a.run_id AND r.epoch = a.epoch AND r.head_seq = a.expected
        AND r.head_hash = a.prev_hash AND (a.control_gen IS NULL OR r.control_gen = a.control_gen)
        ORDER BY r.run_id FOR NO KEY UPDATE OF r),
written AS (
    INSERT INTO run_events
        (run_id, seq, append_id, epoch, kind, ts_ms, payload, payload_digest, prev_hash, hash)
    SELECT e.* FROM unnest(%b::text[], %b::int8[], %b::text[], %b::int8[], %b::int4[], %b::int8[], %b::bytea[],
        %b::bytea[], %b::bytea[], %b::bytea[]) AS e(run_id) JOIN held ON held.run_id = e.run_id),
shown AS (
    INSERT INTO run_projections (run_id, seq, state, body)
    SELECT p.* FROM unnest(%b::text[], %b::int8[], %b::text[], %b::bytea[]) AS p(run_id)
        JOIN held ON held.run_id = p.run_id
    ON CONFLICT (run_id) DO UPDATE SET seq = excluded.seq, state = excluded.state, body = excluded.body)
UPDATE runs SET head_seq = a.last_seq, head_hash = a.last_hash, terminal = coalesce(t.terminal, runs.terminal)
    FROM held JOIN asked a ON a.run_id = held.run_id
    LEFT JOIN unnest(%b::text[], %b::bool[]) AS t(run_id, terminal) ON t.run_id = held.run_id
    WHERE runs.run_id = held.run_id RETURNING runs.run_id
"""

if TYPE_CHECKING:
    _Psycopg = psycopg.Connection[tuple[object, ...]]


class PostgresAppends:
    """Handler of Append on PostgreSQL (infra.db.BatchHandler); tells the hub what was committed."""

    def __init__(self, now_ms: Callable[[Connection], int], hub: Hub) -> None:
        self._now_ms, self._hub, self._heads = now_ms, hub, Heads()

    def apply(self, connection: Connection, items: Sequence[Append]) -> Sequence[Written | SkyError]:
        driver, time_ms = driver_of(connection), self._now_ms(connection)
        plain = [append for append in items if not extended(append) and not ends(append)]
        done = self._together(driver_connection(connection), plain, time_ms)
        return [done.get(append.append_id) or self._alone(driver, append, time_ms) for append in items]

    def topics(self, items: Sequence[Append]) -> Iterable[str]:
        return topics(items)

    def committed(self, results: Sequence[Written]) -> None:
        publish(self._hub, results)

    def _together(self, driver: _Psycopg, appends: Sequence[Append], time_ms: int) -> dict[str, Written]:
        """What was written in one statement, by append_id."""
        heads = self._known(driver, [append.run_id for append in appends])
        known = [append for append in appends if append.run_id in heads]
        if not known:
            return {}
        rows = [rows_of(append, heads[append.run_id], time_ms) for append in known]
        moved = {row[0] for row in driver.execute(_BATCH, _columns(known, rows)).fetchall()}
        written = [(a.append_id, added) for a, added in zip(known, rows, strict=True) if a.run_id in moved]
        return {append_id: Written.of(self._heads.note(added)) for append_id, added in written}

    def _known(self, driver: _Psycopg, run_ids: Sequence[str]) -> dict[str, bytes]:
        """The hash at the head of each run that there is."""
        left = {run_id: hash_ for run_id in run_ids if (hash_ := self._heads.take(run_id))}
        missing = [run_id for run_id in run_ids if run_id not in left]
        found = driver.execute(_HEADS, (missing,)).fetchall() if missing else []
        return left | dict(cast("list[tuple[str, bytes]]", found))

    def _alone(self, driver: Driver, append: Append, time_ms: int) -> Written | SkyError:
        if driver.execute(_LOCK, (append.run_id,)).fetchone() is None:
            return RunNotFound(append.run_id)
        written = write(driver, append, time_ms, self._heads)
        if isinstance(written, Written):
            driver.executemany(INSERT_EVENT, written.rows)
        return written


# Types of the columns of the statement's four tables.
_ASKED = (texts, bigints, bigints, bigints, byte_strings, bigints, byte_strings)
_EVENTS = (
    texts,
    bigints,
    texts,
    bigints,
    integers,
    bigints,
    byte_strings,
    byte_strings,
    byte_strings,
    byte_strings,
)
_SHOWN = (texts, bigints, texts, byte_strings)
_ENDS = (texts, booleans)


def _columns(appends: Sequence[Append], rows: Sequence[tuple[EventRow, ...]]) -> list[object]:
    """The parameters of the statement: its tables, column by column."""
    asked = [
        (a.run_id, a.epoch, a.expect_seq, a.control_gen, added[0][8], added[-1][1], added[-1][9])
        for a, added in zip(appends, rows, strict=True)
    ]
    events = [row for added in rows for row in added]
    shown = [
        (a.run_id, added[-1][1], a.projection.state, a.projection.body)
        for a, added in zip(appends, rows, strict=True)
        if a.projection is not None
    ]
    over = [(a.run_id, a.projection.terminal) for a in appends if a.projection is not None]
    return [*_packed(_ASKED, asked), *_packed(_EVENTS, events), *_packed(_SHOWN, shown), *_packed(_ENDS, over)]


def _packed(columns: Sequence[Callable[..., object]], rows: Sequence[tuple[object, ...]]) -> list[object]:
    turned = zip(*rows, strict=True) if rows else ((),) * len(columns)
    return [pack(column) for pack, column in zip(columns, turned, strict=True)]
