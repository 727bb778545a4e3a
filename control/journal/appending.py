"""What both systems do alike when they append: the chained rows, and who is told of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from control.journal.append import Append, Appended
from control.journal.chain import event_hash, payload_digest
from control.journal.event import EventDraft, StoredEvent
from control.journal.hub import Hub, event_topic, wake_topic

INSERT_EVENT = (
    "INSERT INTO run_events (run_id, seq, append_id, epoch, kind, ts_ms, payload, payload_digest, prev_hash, hash)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_HEADS_KEPT = 4096

EventRow = tuple[str, int, str, int, int, int, bytes, bytes, bytes, bytes]
"""The values of INSERT_EVENT: run_id, seq, append_id, epoch, kind, ts_ms, payload, payload_digest, prev_hash, hash."""


@dataclass(frozen=True, slots=True)
class Written:
    """What one append did; no rows when it had been committed before. `ends` when its run is over with it."""

    appended: Appended
    rows: tuple[EventRow, ...]
    ends: bool = False

    @staticmethod
    def of(rows: tuple[EventRow, ...], *, ends: bool = False) -> Written:
        """An append that added these rows."""
        last = rows[-1]
        return Written(Appended(last[1], last[9], last[5]), rows, ends)


def chained(
    run_id: str, append_id: str, epoch: int, seq: int, events: Iterable[EventDraft], prev_hash: bytes, time_ms: int
) -> tuple[EventRow, ...]:
    """The events after `seq`, each with the hash that holds it to the one before."""
    rows: list[EventRow] = []
    for draft in events:
        seq += 1
        kind, payload = draft.kind, draft.payload
        digest = payload_digest(payload)
        hashed = event_hash(prev_hash, run_id, seq, epoch, kind, time_ms, append_id, digest)
        rows.append((run_id, seq, append_id, epoch, kind, time_ms, payload, digest, prev_hash, hashed))
        prev_hash = hashed
    return tuple(rows)


def rows_of(append: Append, prev_hash: bytes, now_ms: int) -> tuple[EventRow, ...]:
    """The rows of an append after an event with that hash."""
    time_ms = now_ms if append.time_ms is None else append.time_ms
    run_id, append_id, epoch, seq = append.run_id, append.append_id, append.epoch, append.expect_seq
    return chained(run_id, append_id, epoch, seq, append.events, prev_hash, time_ms)


class Heads:
    """Hashes with which runs were left by this process, to spare reading them.

    A transaction that came to nothing makes one wrong, which the compare-and-set notices.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, bytes] = {}

    def take(self, run_id: str) -> bytes | None:
        """The hash, which from now on is not known any more."""
        return self._hashes.pop(run_id, None)

    def note(self, rows: tuple[EventRow, ...]) -> tuple[EventRow, ...]:
        """Keeps the hash that these rows leave; returns them."""
        if len(self._hashes) >= _HEADS_KEPT:
            self._hashes.clear()
        self._hashes[rows[-1][0]] = rows[-1][9]
        return rows


def ends(append: Append) -> bool:
    """Whether the run is over with it: its questions are closed, and whoever waited for its end is told."""
    return append.projection is not None and append.projection.terminal


def extended(append: Append) -> bool:
    """Whether it touches more than its run's events."""
    touched = (append.applied_commands, append.new_approvals, append.claims, append.releases)
    return append.consume is not None or any(touched)


def publish(hub: Hub, results: Iterable[Written]) -> None:
    """Hands what was committed to those who follow it in this process."""
    for written in results:
        if written.rows and hub.has_tail(written.rows[0][0]):
            hub.publish([StoredEvent(*row) for row in written.rows])
        if written.ends:
            hub.wake(written.rows[0][0])


def topics(appends: Sequence[Append]) -> Iterable[str]:
    """What other processes should look at after these."""
    over = [wake_topic(append.run_id) for append in appends if ends(append)]
    return [*(event_topic(append.run_id) for append in appends), *over]
