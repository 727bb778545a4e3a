"""The worker's own journal: which attempts were begun here, and what came of each.

It makes an attempt execute at most once. A key is journalled as begun, on disk, before its effect; an effect whose
outcome is not in the journal when its process dies is marked as lost by the next holder, never guessed. A key that is
known in any state never executes again.

One process holds the file for life. Every method runs inside `transaction()`; durable means after that block.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import cast

from execution.attempts import AttemptKey, Begun, Fence, Known, Record, Refusal, Refused, State
from infra.clock import Clock
from infra.disk import disk_full, held, sync_folder
from infra.errors import DataLoss, Internal, Precondition, SkyError
from infra.ids import Ids

# pysqlite3 is the standard module built against an SQLite without the WAL-reset bug; its types are those of `sqlite3`.
_driver = import_module("pysqlite3.dbapi2")
_open = cast("type[sqlite3.Connection]", _driver.connect)
DriverError = cast("type[sqlite3.Error]", _driver.Error)

SCHEMA_VERSION = 1
ENDED_RUNS_KEPT = 4096

_SCHEMA = """
CREATE TABLE journal (journal_id TEXT NOT NULL, created_ms INTEGER NOT NULL) STRICT;
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    log_generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    ended_ms INTEGER
) STRICT;
CREATE TABLE steps (
    run_id TEXT NOT NULL,
    step_id TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    log_generation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    action_digest TEXT NOT NULL,
    effect_class INTEGER NOT NULL,
    state TEXT NOT NULL,
    outcome BLOB,
    begun_ms INTEGER NOT NULL,
    done_ms INTEGER,
    PRIMARY KEY (run_id, step_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX steps_held ON steps (state) WHERE state <> 'RELEASED';
"""


@contextmanager
def open_journal(folder: Path, *, clock: Clock, ids: Ids) -> Generator[Journal]:
    """Hold and open the journal in `folder`, made if absent, and mark as lost what former processes had begun.

    Raises Precondition DATA_IN_USE when another process holds it, JOURNAL_TOO_NEW; DataLoss WORKER_JOURNAL_FAILED.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "journal.db"
    with held(folder / "journal.lock"):
        try:
            database = _connect(path)
        except DriverError as failure:
            raise journal_failure(failure, path) from failure
        sync_folder(folder)
        with closing(database):
            yield _prepare(database, path, clock, ids)


def journal_failure(error: sqlite3.Error, path: Path) -> SkyError:
    """What a person can do about an error of the journal's storage."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return disk_full(path)
    return DataLoss(
        "WORKER_JOURNAL_FAILED",
        f"the worker's journal {path} cannot be used ({error}). Mend the disk; if the file itself is damaged, move it "
        "and its -wal and -shm files away: the worker starts a new one, and what it had begun counts as lost",
        path=str(path),
    )


class Journal:
    """The open journal. Not thread-safe: one thread at a time."""

    def __init__(self, database: sqlite3.Connection, path: Path, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self.path = path

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Everything inside is on disk when the block ends, or nothing is."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:  # a full disk may have ended it already
                self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    @contextmanager
    def savepoint(self) -> Generator[None]:
        """Undoes only what is inside when that raises."""
        self._execute("SAVEPOINT one")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:
                self._execute("ROLLBACK TO one")
                self._execute("RELEASE one")
            raise
        self._execute("RELEASE one")

    def journal_id(self) -> str:
        """Random, made with the file: "never begun" is only true from this very journal."""
        (journal_id,) = self._execute("SELECT journal_id FROM journal").fetchone()
        return journal_id

    def begin(self, key: AttemptKey, fence: Fence, action_digest: str, effect_class: int) -> Begun | Known | Refused:
        """The one door to an effect. A known key, whoever asks, is only ever reported."""
        known = self.find(key)
        if known is not None:
            # A tombstone that Cancel made ahead of its Assign does not know the action.
            if known.action_digest not in ("", action_digest):
                return Refused(Refusal.OTHER_ACTION, known)
            return Known(self._adopt(known, fence))
        refusal = self._refusal(key, fence)
        if refusal is not None:
            return Refused(refusal)
        self._raise_fence(key.run_id, fence)
        if key.attempt < self._highest_attempt(key):
            return Refused(Refusal.STALE_ATTEMPT)
        return Begun(self._insert(key, fence, State.BEGUN, action_digest, effect_class, None))

    def entomb(
        self, key: AttemptKey, fence: Fence, outcome: bytes, *, action_digest: str = "", effect_class: int = 0
    ) -> Record | Refused:
        """Make sure that an unknown key never begins: its outcome is decided here. A known key is only reported."""
        known = self.find(key)
        if known is not None:
            return self._adopt(known, fence)
        refusal = self._refusal(key, fence)
        if refusal is not None:
            return Refused(refusal)
        self._raise_fence(key.run_id, fence)
        return self._insert(key, fence, State.TOMBSTONE, action_digest, effect_class, outcome)

    def inspect(self, key: AttemptKey, fence: Fence) -> Record | None:
        """What is known, for an owner whose fence binds from now on: what an older owner sent can no longer begin."""
        known = self.find(key)
        if known is not None:
            return self._adopt(known, fence)
        if self._refusal(key, fence) is None:
            self._raise_fence(key.run_id, fence)
        return None

    def finish(self, key: AttemptKey, outcome: bytes) -> Record:
        """What came of a begun attempt. Raises Internal for any other."""
        now = self._clock.now_ms()
        changed = self._execute(
            "UPDATE steps SET state = 'DONE', outcome = ?, done_ms = ? "
            "WHERE (run_id, step_id, attempt) = (?, ?, ?) AND state = 'BEGUN'",
            (outcome, now, *_parameters(key)),
        )
        done = self.find(key)
        if changed.rowcount != 1 or done is None:
            raise Internal("ATTEMPT_NOT_BEGUN", f"{key} cannot be finished: it is {done.state if done else 'unknown'}")
        return done

    def release(self, key: AttemptKey) -> bool:
        """Let go of an outcome that the control plane has recorded. The key stays, so that it never executes again."""
        changed = self._execute(
            "UPDATE steps SET state = 'RELEASED', outcome = NULL "
            "WHERE (run_id, step_id, attempt) = (?, ?, ?) AND state IN ('DONE', 'LOST', 'TOMBSTONE')",
            _parameters(key),
        )
        if self.has_ended(key.run_id):
            self._execute(
                "DELETE FROM steps WHERE (run_id, step_id, attempt) = (?, ?, ?) AND state = 'RELEASED'",
                _parameters(key),
            )
        return changed.rowcount == 1

    def end_run(self, run_id: str) -> None:
        """Forget a run's keys. What still executes keeps its row until its outcome is released."""
        self._execute("DELETE FROM steps WHERE run_id = ? AND state <> 'BEGUN'", (run_id,))
        self._execute(
            "INSERT INTO runs VALUES (?, 0, 0, ?) ON CONFLICT (run_id) DO UPDATE SET ended_ms = excluded.ended_ms",
            (run_id, self._clock.now_ms()),
        )
        # An ended run is remembered for a while, so that an Assign which was overtaken by the end finds it.
        self._execute(
            "DELETE FROM runs WHERE ended_ms IS NOT NULL AND rowid NOT IN "
            "(SELECT rowid FROM runs WHERE ended_ms IS NOT NULL ORDER BY ended_ms DESC, rowid DESC LIMIT ?)",
            (ENDED_RUNS_KEPT,),
        )

    def has_ended(self, run_id: str) -> bool:
        """Whether the control plane said that this run is over."""
        return (
            self._execute("SELECT 1 FROM runs WHERE run_id = ? AND ended_ms IS NOT NULL", (run_id,)).fetchone()
            is not None
        )

    def find(self, key: AttemptKey) -> Record | None:
        """The row of a key."""
        row = self._execute(
            "SELECT * FROM steps WHERE (run_id, step_id, attempt) = (?, ?, ?)", _parameters(key)
        ).fetchone()
        return None if row is None else _record(row)

    def unreleased(self) -> list[Record]:
        """Every attempt whose outcome is not known to be recorded, oldest first."""
        rows = self._execute("SELECT * FROM steps WHERE state <> 'RELEASED' ORDER BY begun_ms, step_id, attempt")
        return [_record(row) for row in rows.fetchall()]

    def let_go(self, each: int, most: int) -> list[Record]:
        """The last attempts of each run whose outcome is recorded; only their keys are kept until the run has ended."""
        rows = self._execute(
            "SELECT run_id, step_id, attempt, log_generation, epoch, action_digest, effect_class, state, outcome,"
            " begun_ms, done_ms FROM (SELECT *, row_number() OVER (PARTITION BY run_id ORDER BY done_ms DESC) AS nth"
            " FROM steps WHERE state = 'RELEASED') WHERE nth <= ? ORDER BY done_ms DESC LIMIT ?",
            (each, most),
        )
        return [_record(row) for row in rows.fetchall()]

    def run_ids(self) -> list[str]:
        """Every run of which a key is kept, oldest first."""
        rows = self._execute("SELECT run_id FROM steps GROUP BY run_id ORDER BY min(begun_ms), run_id")
        return [run_id for (run_id,) in rows.fetchall()]

    def lose_begun(self) -> None:
        """Only for the holder at open: whoever began these is dead, and how far it came is not known."""
        self._execute("UPDATE steps SET state = 'LOST', done_ms = ? WHERE state = 'BEGUN'", (self._clock.now_ms(),))

    def create(self, journal_id: str) -> None:
        """A new file's tables and identity, together or not at all."""
        for statement in _SCHEMA.split(";\n"):
            self._execute(statement)
        self._execute("INSERT INTO journal VALUES (?, ?)", (journal_id, self._clock.now_ms()))
        self._execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def version(self) -> int:
        """0 for a new file."""
        (version,) = self._execute("PRAGMA user_version").fetchone()
        return version

    def _refusal(self, key: AttemptKey, fence: Fence) -> Refusal | None:
        if self.has_ended(key.run_id):
            return Refusal.RUN_ENDED
        return Refusal.STALE_FENCE if fence < self._fence(key.run_id) else None

    def _fence(self, run_id: str) -> Fence:
        row = self._execute("SELECT log_generation, epoch FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return Fence(0, 0) if row is None else Fence(*row)

    def _raise_fence(self, run_id: str, fence: Fence) -> None:
        if fence > self._fence(run_id):
            self._execute(
                "INSERT INTO runs VALUES (?, ?, ?, NULL) ON CONFLICT (run_id) DO UPDATE "
                "SET log_generation = excluded.log_generation, epoch = excluded.epoch",
                (run_id, fence.log_generation, fence.epoch),
            )

    def _adopt(self, known: Record, fence: Fence) -> Record:
        self._raise_fence(known.key.run_id, fence)
        if fence <= known.fence:
            return known
        self._execute(
            "UPDATE steps SET log_generation = ?, epoch = ? WHERE (run_id, step_id, attempt) = (?, ?, ?)",
            (fence.log_generation, fence.epoch, *_parameters(known.key)),
        )
        return cast("Record", self.find(known.key))

    def _highest_attempt(self, key: AttemptKey) -> int:
        (highest,) = self._execute(
            "SELECT coalesce(max(attempt), 0) FROM steps WHERE run_id = ? AND step_id = ?", (key.run_id, key.step_id)
        ).fetchone()
        return highest

    def _insert(
        self, key: AttemptKey, fence: Fence, state: State, action_digest: str, effect_class: int, outcome: bytes | None
    ) -> Record:
        now = self._clock.now_ms()
        done = None if state is State.BEGUN else now
        record = Record(key, fence, action_digest, effect_class, state, outcome, now, done)
        self._execute(
            "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *_parameters(key),
                fence.log_generation,
                fence.epoch,
                action_digest,
                effect_class,
                state,
                outcome,
                now,
                done,
            ),
        )
        return record

    def _execute(self, statement: str, parameters: tuple[str | int | bytes | None, ...] = ()) -> sqlite3.Cursor:
        if not self._database.in_transaction:
            raise Internal("NO_TRANSACTION", "the journal is only read and written inside transaction()")
        return self._database.execute(statement, parameters)


def _prepare(database: sqlite3.Connection, path: Path, clock: Clock, ids: Ids) -> Journal:
    journal = Journal(database, path, clock)
    with journal.transaction():
        version = journal.version()
        if version > SCHEMA_VERSION:
            raise Precondition(
                "JOURNAL_TOO_NEW",
                f"{path} is of version {version} and this program knows {SCHEMA_VERSION}: install the newer one again",
            )
        if version == 0:
            journal.create(ids.uuid())
        journal.lose_begun()
    return journal


def _connect(path: Path) -> sqlite3.Connection:
    # Used by one thread at a time, though not by the one that opens it.
    database = _open(str(path), isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        database.close()
        raise journal_failure(DriverError(verdict), path)
    return database


def _parameters(key: AttemptKey) -> tuple[str, str, int]:
    return key.run_id, key.step_id, key.attempt


def _record(row: tuple[str, str, int, int, int, str, int, str, bytes | None, int, int | None]) -> Record:
    run_id, step_id, attempt, log_generation, epoch, digest, effect_class, state, outcome, begun_ms, done_ms = row
    key = AttemptKey(run_id, step_id, attempt)
    return Record(key, Fence(log_generation, epoch), digest, effect_class, State(state), outcome, begun_ms, done_ms)
