"""One append after another, in the statements that both systems know.

An append is one fenced UPDATE that must hit one row, then its events. Only one that also touches approvals or commands,
or whose UPDATE hit nothing, is looked at more closely; nothing is written before that look found no objection. Nobody
else may write the run meanwhile: on SQLite nobody can, on PostgreSQL its row is locked before.
"""

from __future__ import annotations

from collections.abc import Sequence

from control.journal import lineage
from control.journal.append import Append, Appended, ApprovalUse
from control.journal.appending import EventRow, Heads, Written, ends, extended, rows_of
from control.journal.approval import ApprovalStatus
from control.journal.errors import (
    ApprovalNotUsable,
    CommandNotPending,
    ControlMoved,
    RunNotFound,
    StaleHead,
    StaleOwner,
)
from infra.db.driver import Cursor, Driver
from infra.errors import Internal, SkyError

_PREVIOUS = "SELECT head_hash FROM runs WHERE run_id = ?"
_MOVE = "UPDATE runs SET head_seq = ?, head_hash = ? WHERE run_id = ? AND epoch = ? AND head_seq = ? AND head_hash = ?"
_MOVE_UNDER_CONTROL = _MOVE + " AND control_gen = ?"
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


def write(driver: Driver, append: Append, now_ms: int, heads: Heads) -> Written | SkyError:
    """Moves the head and all that goes with it; the rows of events are left to the caller."""
    more = extended(append)
    if more and (objection := _objection(driver, append) or lineage.claimed(driver, append)) is not None:
        return objection
    rows = _moved(driver, append, now_ms, heads)
    if rows is None:
        return _objection(driver, append) or Internal("APPEND_REFUSED", f"append to {append.run_id} was refused")
    if more:
        _touch_others(driver, append, rows[-1])
    if append.projection is not None:
        _project(driver, append, rows[-1])
    return Written.of(rows, ends=ends(append))


def _moved(driver: Driver, append: Append, now_ms: int, heads: Heads) -> tuple[EventRow, ...] | None:
    """The rows after which the run's head stands now; nothing when it could not be moved."""
    left = heads.take(append.run_id)
    if left is not None:
        rows = rows_of(append, left, now_ms)
        if _move_head(driver, append, rows):
            return heads.note(rows)
    previous = driver.execute(_PREVIOUS, (append.run_id,)).fetchone()
    if previous is None or previous[0] == left:
        return None
    rows = rows_of(append, previous[0], now_ms)
    return heads.note(rows) if _move_head(driver, append, rows) else None


def _move_head(driver: Driver, append: Append, rows: Sequence[EventRow]) -> bool:
    last = rows[-1]
    fenced = (last[1], last[9], append.run_id, append.epoch, append.expect_seq, rows[0][8])
    if append.control_gen is None:
        return driver.execute(_MOVE, fenced).rowcount == 1
    return driver.execute(_MOVE_UNDER_CONTROL, (*fenced, append.control_gen)).rowcount == 1


def _objection(driver: Driver, append: Append) -> Written | SkyError | None:
    """Why the append cannot be written: the first reason that is true; what it wrote, when it is committed already."""
    before = driver.execute(_LAST_OF_APPEND, (append.run_id, append.append_id)).fetchone()
    if before is not None:
        return Written(Appended(*before), ())
    counters = driver.execute(_COUNTERS, (append.run_id,)).fetchone()
    if counters is None:
        return RunNotFound(append.run_id)
    epoch, control_gen, head_seq = counters
    if epoch != append.epoch:
        return StaleOwner(append.run_id, append.epoch, epoch)
    if append.control_gen is not None and control_gen != append.control_gen:
        return ControlMoved(append.run_id, append.control_gen, control_gen)
    if head_seq != append.expect_seq:
        return StaleHead(append.run_id, append.expect_seq, head_seq)
    if append.consume is not None and (why := _unusable(driver, append.run_id, append.consume)):
        return ApprovalNotUsable(append.consume.approval_id, why)
    for cmd_id in append.applied_commands:
        if driver.execute(_PENDING, (cmd_id, append.run_id)).fetchone() is None:
            return CommandNotPending(append.run_id, cmd_id)
    return None


def _unusable(driver: Driver, run_id: str, use: ApprovalUse) -> str:
    row = driver.execute(_APPROVAL, (use.approval_id, run_id)).fetchone()
    if row is None:
        return "this run has no such approval"
    status, action_digest = row
    if status != ApprovalStatus.GRANTED.value:
        return f"it is {status}"
    if action_digest != use.action_digest:
        return f"it was given for the action {action_digest}, not for {use.action_digest}"
    return ""


def _touch_others(driver: Driver, append: Append, last: EventRow) -> None:
    run_id, use, seq, now_ms = append.run_id, append.consume, last[1], last[5]
    if use is not None:
        _exactly_one(driver.execute(_CONSUME, (append.append_id, use.approval_id, run_id, use.action_digest)))
    for cmd_id in append.applied_commands:
        _exactly_one(driver.execute(_APPLY, (seq, cmd_id, run_id)))
    for new in append.new_approvals:
        asked = (new.approval_id, new.step_id, new.action_digest, new.expires_ms, seq, now_ms, new.body, run_id)
        _exactly_one(driver.execute(_ASK, asked))
    lineage.release(driver, append)


def _project(driver: Driver, append: Append, last: EventRow) -> None:
    projection, seq, now_ms = append.projection, last[1], last[5]
    if projection is not None:
        driver.execute(_PROJECT, (append.run_id, seq, projection.state, projection.body))
        ended = driver.execute(_SET_TERMINAL, (projection.terminal, append.run_id, projection.terminal))
        if projection.terminal and ended.rowcount:  # a run that is over asks nobody any more
            driver.execute(_CLOSE, (now_ms, append.run_id))


def _exactly_one(cursor: Cursor) -> None:
    if cursor.rowcount != 1:
        raise Internal("WRITE_LOST", "a row that was there a moment ago could not be changed inside one transaction")
