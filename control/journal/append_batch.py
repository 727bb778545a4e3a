"""The hot path on SQLite: all appends of a batch in one transaction, on the bare driver connection.

An append is one fenced UPDATE that must hit one row, then its events. Only one that also touches approvals or commands,
or whose UPDATE hit nothing, is looked at more closely; nothing is written before that look found no objection.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control.journal.append import Append, Appended, ApprovalUse
from control.journal.approval import ApprovalStatus
from control.journal.chain import event_hash, payload_digest
from control.journal.errors import (
    ApprovalNotUsable,
    CommandNotPending,
    ControlMoved,
    RunNotFound,
    StaleHead,
    StaleOwner,
)
from control.journal.event import EventDraft, StoredEvent
from control.journal.hub import Hub
from infra.clock import Clock
from infra.errors import Internal, SkyError

_PREVIOUS = "SELECT head_hash FROM runs WHERE run_id = ?"
_MOVE = "UPDATE runs SET head_seq = ?, head_hash = ? WHERE run_id = ? AND epoch = ? AND head_seq = ? AND head_hash = ?"
_MOVE_UNDER_CONTROL = _MOVE + " AND control_gen = ?"
INSERT_EVENT = (
    "INSERT INTO run_events (run_id, seq, append_id, epoch, kind, ts_ms, payload, payload_digest, prev_hash, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COUNTERS = "SELECT epoch, control_gen, head_seq FROM runs WHERE run_id = ?"
_LAST_OF_APPEND = "SELECT seq, hash, ts_ms FROM run_events WHERE run_id = ? AND append_id = ? ORDER BY seq DESC LIMIT 1"
_APPROVAL = "SELECT status, action_digest FROM approvals WHERE approval_id = ? AND run_id = ?"
_CONSUME = (
    "UPDATE approvals SET status = 'CONSUMED', consumed_by = ?"
    " WHERE approval_id = ? AND run_id = ? AND status = 'GRANTED' AND action_digest = ? AND consumed_by IS NULL"
)
_PENDING = "SELECT 1 FROM run_commands WHERE cmd_id = ? AND run_id = ? AND applied_seq IS NULL"
_APPLY = "UPDATE run_commands SET applied_seq = ? WHERE cmd_id = ? AND run_id = ? AND applied_seq IS NULL"
_ASK = (
    "INSERT INTO approvals (approval_id, run_id, tenant, step_id, action_digest, status, expires_ms, requested_seq,"
    " requested_ms, body, note) SELECT ?, run_id, tenant, ?, ?, 'PENDING', ?, ?, ?, ?, '' FROM runs WHERE run_id = ?"
)
_PROJECT = (
    "INSERT INTO run_projections (run_id, seq, state, body) VALUES (?, ?, ?, ?) ON CONFLICT (run_id)"
    " DO UPDATE SET seq = excluded.seq, state = excluded.state, body = excluded.body"
)
_CLOSE = (
    "UPDATE approvals SET status = 'EXPIRED', decided_by = '', decided_ms = ?, note = 'the run has ended'"
    " WHERE run_id = ? AND status = 'PENDING'"
)
_SET_TERMINAL = "UPDATE runs SET terminal = ? WHERE run_id = ? AND terminal <> ?"

_HEADS_KEPT = 4096

EventRow = tuple[str, int, str, int, int, int, bytes, bytes, bytes, bytes]
"""The values of INSERT_EVENT."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one append did; no rows when it had been committed before."""

    appended: Appended
    rows: tuple[EventRow, ...]


class AppendBatch:
    """Handler of Append on SQLite (infra.db.BatchHandler); tells the hub what was committed."""

    def __init__(self, clock: Clock, hub: Hub) -> None:
        self._clock = clock
        self._hub = hub
        # Where runs were left. A transaction that came to nothing makes it wrong, which the compare-and-set notices.
        self._heads: dict[str, bytes] = {}

    def apply(self, connection: sqlite3.Connection, items: Sequence[Append]) -> Sequence[Written | SkyError]:
        now_ms = self._clock.now_ms()
        answers = [self._write(connection, append, now_ms) for append in items]
        written = [answer for answer in answers if isinstance(answer, Written)]
        connection.executemany(INSERT_EVENT, [row for append in written for row in append.rows])
        return answers

    def committed(self, results: Sequence[Written]) -> None:
        for written in results:
            if written.rows and self._hub.has_tail(written.rows[0][0]):
                self._hub.publish([StoredEvent(*row) for row in written.rows])

    def _write(self, connection: sqlite3.Connection, append: Append, now_ms: int) -> Written | SkyError:
        now_ms = now_ms if append.time_ms is None else append.time_ms
        extended = append.consume is not None or append.applied_commands or append.new_approvals
        if extended and (objection := _objection(connection, append)) is not None:
            return objection
        rows = self._moved(connection, append, now_ms)
        if rows is None:
            return _objection(connection, append) or Internal(
                "APPEND_REFUSED", f"append to {append.run_id} was refused"
            )
        if extended:
            _touch_others(connection, append, rows[-1][1], now_ms)
        if append.projection is not None:
            _project(connection, append, rows[-1][1], now_ms)
        return Written(Appended(rows[-1][1], rows[-1][9], now_ms), rows)

    def _moved(self, connection: sqlite3.Connection, append: Append, now_ms: int) -> tuple[EventRow, ...] | None:
        """The rows after which the run's head stands now; nothing when it could not be moved."""
        left = self._heads.pop(append.run_id, None)
        if left is not None:
            rows = _chained(append, left, now_ms)
            if _move_head(connection, append, rows):
                return self._noted(rows)
        previous = connection.execute(_PREVIOUS, (append.run_id,)).fetchone()
        if previous is None or previous[0] == left:
            return None
        rows = _chained(append, previous[0], now_ms)
        return self._noted(rows) if _move_head(connection, append, rows) else None

    def _noted(self, rows: tuple[EventRow, ...]) -> tuple[EventRow, ...]:
        if len(self._heads) >= _HEADS_KEPT:
            self._heads.clear()
        self._heads[rows[-1][0]] = rows[-1][9]
        return rows


def _chained(append: Append, prev_hash: bytes, now_ms: int) -> tuple[EventRow, ...]:
    return chained(append.run_id, append.append_id, append.epoch, append.expect_seq, append.events, prev_hash, now_ms)


def chained(
    run_id: str, append_id: str, epoch: int, seq: int, events: Iterable[EventDraft], prev_hash: bytes, now_ms: int
) -> tuple[EventRow, ...]:
    """The events after `seq`, each with the hash that holds it to the one before."""
    rows: list[EventRow] = []
    for draft in events:
        seq += 1
        kind, payload = draft.kind, draft.payload
        digest = payload_digest(payload)
        hashed = event_hash(prev_hash, run_id, seq, epoch, kind, now_ms, append_id, digest)
        rows.append((run_id, seq, append_id, epoch, kind, now_ms, payload, digest, prev_hash, hashed))
        prev_hash = hashed
    return tuple(rows)


def _move_head(connection: sqlite3.Connection, append: Append, rows: Sequence[EventRow]) -> bool:
    last = rows[-1]
    fenced = (last[1], last[9], append.run_id, append.epoch, append.expect_seq, rows[0][8])
    if append.control_gen is None:
        return connection.execute(_MOVE, fenced).rowcount == 1
    return connection.execute(_MOVE_UNDER_CONTROL, (*fenced, append.control_gen)).rowcount == 1


def _objection(connection: sqlite3.Connection, append: Append) -> Written | SkyError | None:
    """Why the append cannot be written, in the order of PROTOCOL 2; what it wrote, when it is committed already."""
    before = connection.execute(_LAST_OF_APPEND, (append.run_id, append.append_id)).fetchone()
    if before is not None:
        return Written(Appended(*before), ())
    counters = connection.execute(_COUNTERS, (append.run_id,)).fetchone()
    if counters is None:
        return RunNotFound(append.run_id)
    epoch, control_gen, head_seq = counters
    if epoch != append.epoch:
        return StaleOwner(append.run_id, append.epoch, epoch)
    if append.control_gen is not None and control_gen != append.control_gen:
        return ControlMoved(append.run_id, append.control_gen, control_gen)
    if head_seq != append.expect_seq:
        return StaleHead(append.run_id, append.expect_seq, head_seq)
    if append.consume is not None and (why := _unusable(connection, append.run_id, append.consume)):
        return ApprovalNotUsable(append.consume.approval_id, why)
    for cmd_id in append.applied_commands:
        if connection.execute(_PENDING, (cmd_id, append.run_id)).fetchone() is None:
            return CommandNotPending(append.run_id, cmd_id)
    return None


def _unusable(connection: sqlite3.Connection, run_id: str, use: ApprovalUse) -> str:
    row = connection.execute(_APPROVAL, (use.approval_id, run_id)).fetchone()
    if row is None:
        return "this run has no such approval"
    status, action_digest = row
    if status != ApprovalStatus.GRANTED.value:
        return f"it is {status}"
    if action_digest != use.action_digest:
        return f"it was given for the action {action_digest}, not for {use.action_digest}"
    return ""


def _touch_others(connection: sqlite3.Connection, append: Append, seq: int, now_ms: int) -> None:
    run_id, use = append.run_id, append.consume
    if use is not None:
        _exactly_one(connection.execute(_CONSUME, (append.append_id, use.approval_id, run_id, use.action_digest)))
    for cmd_id in append.applied_commands:
        _exactly_one(connection.execute(_APPLY, (seq, cmd_id, run_id)))
    for new in append.new_approvals:
        asked = (new.approval_id, new.step_id, new.action_digest, new.expires_ms, seq, now_ms, new.body, run_id)
        _exactly_one(connection.execute(_ASK, asked))


def _project(connection: sqlite3.Connection, append: Append, seq: int, now_ms: int) -> None:
    projection = append.projection
    if projection is not None:
        connection.execute(_PROJECT, (append.run_id, seq, projection.state, projection.body))
        ended = connection.execute(_SET_TERMINAL, (projection.terminal, append.run_id, projection.terminal))
        if projection.terminal and ended.rowcount:  # a run that is over asks nobody any more
            connection.execute(_CLOSE, (now_ms, append.run_id))


def _exactly_one(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        raise Internal("WRITE_LOST", "a row that was there a moment ago could not be changed inside one transaction")
