"""The worker's journal: what it lets begin, what it remembers, and who may hold it."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from execution import journal as journal_module
from execution.attempts import AttemptKey, Begun, Fence, Known, Record, Refusal, Refused, State
from execution.journal import Journal, open_journal
from infra.clock import ManualClock
from infra.errors import DataLoss, Internal, Precondition
from infra.ids import system_ids

ONCE = 4
FENCE = Fence(0, 1)
DIGEST = "b3:" + "1" * 64


def key(step: str = "s", attempt: int = 1, run: str = "r") -> AttemptKey:
    return AttemptKey(run, step, attempt)


class Opened:
    """A journal that a test closes and opens again, each call in its own transaction."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self._stack = ExitStack()
        self._journal = self._open()

    def begin(
        self, which: AttemptKey | None = None, fence: Fence = FENCE, digest: str = DIGEST
    ) -> Begun | Known | Refused:
        with self._journal.transaction():
            return self._journal.begin(which or key(), fence, digest, ONCE)

    def entomb(self, which: AttemptKey | None = None, fence: Fence = FENCE) -> Record | Refused:
        with self._journal.transaction():
            return self._journal.entomb(which or key(), fence, b"cancelled")

    def inspect(self, which: AttemptKey | None = None, fence: Fence = FENCE) -> Record | None:
        with self._journal.transaction():
            return self._journal.inspect(which or key(), fence)

    def finish(self, which: AttemptKey | None = None) -> Record:
        with self._journal.transaction():
            return self._journal.finish(which or key(), b"outcome")

    def release(self, which: AttemptKey | None = None) -> bool:
        with self._journal.transaction():
            return self._journal.release(which or key())

    def end_run(self, run: str = "r") -> None:
        with self._journal.transaction():
            self._journal.end_run(run)

    def find(self, which: AttemptKey | None = None) -> Record | None:
        with self._journal.transaction():
            return self._journal.find(which or key())

    def unreleased(self) -> list[Record]:
        with self._journal.transaction():
            return self._journal.unreleased()

    def journal_id(self) -> str:
        with self._journal.transaction():
            return self._journal.journal_id()

    def close(self) -> None:
        self._stack.close()

    def reopen(self) -> None:
        self.close()
        self._journal = self._open()

    @property
    def bare(self) -> Journal:
        return self._journal

    def _open(self) -> Journal:
        self._stack = ExitStack()
        return self._stack.enter_context(open_journal(self.folder, clock=self.clock, ids=system_ids(self.clock)))


@pytest.fixture
def journal(tmp_path: Path) -> Generator[Opened]:
    opened = Opened(tmp_path)
    yield opened
    opened.close()


def state(journal: Opened, which: AttemptKey | None = None) -> State | None:
    record = journal.find(which)
    return record and record.state


def test_an_unknown_attempt_begins(journal: Opened) -> None:
    assert journal.begin() == Begun(Record(key(), FENCE, DIGEST, ONCE, State.BEGUN, None, journal.clock.now_ms(), None))


def test_a_known_attempt_is_only_reported_in_whatever_state_it_is(journal: Opened) -> None:
    journal.begin()
    for expected in (State.BEGUN, State.DONE, State.RELEASED):
        answer = journal.begin()
        assert isinstance(answer, Known)
        assert answer.record.state is expected
        _ = journal.finish() if expected is State.BEGUN else journal.release()


def test_an_outcome_is_kept_until_it_is_released(journal: Opened) -> None:
    journal.begin()
    assert journal.finish().outcome == b"outcome"
    journal.reopen()
    assert [record.outcome for record in journal.unreleased()] == [b"outcome"]
    assert journal.release()
    assert journal.unreleased() == []
    assert journal.find() is not None


def test_releasing_again_changes_nothing(journal: Opened) -> None:
    journal.begin()
    journal.finish()
    assert [journal.release(), journal.release()] == [True, False]


def test_what_runs_cannot_be_released(journal: Opened) -> None:
    journal.begin()
    assert not journal.release()
    assert state(journal) is State.BEGUN


def test_a_later_attempt_of_the_step_begins_and_an_earlier_one_does_not(journal: Opened) -> None:
    assert isinstance(journal.begin(key(attempt=2)), Begun)
    assert isinstance(journal.begin(key(attempt=3)), Begun)
    assert journal.begin(key(attempt=1)) == Refused(Refusal.STALE_ATTEMPT)
    assert isinstance(journal.begin(key("other", attempt=1)), Begun)


def test_an_earlier_attempt_stays_refused_after_the_later_one_is_released(journal: Opened) -> None:
    journal.begin(key(attempt=2))
    journal.finish(key(attempt=2))
    journal.release(key(attempt=2))
    assert journal.begin(key(attempt=1)) == Refused(Refusal.STALE_ATTEMPT)


@pytest.mark.parametrize("stale", [Fence(1, 4), Fence(0, 99)])
def test_an_overtaken_owner_begins_nothing_in_that_run(journal: Opened, stale: Fence) -> None:
    journal.begin(key("a"), Fence(1, 5))
    assert journal.begin(key("b"), stale) == Refused(Refusal.STALE_FENCE)
    assert journal.find(key("b")) is None
    assert isinstance(journal.begin(key("b", run="another run"), stale), Begun)


def test_a_greater_fence_binds_from_then_on(journal: Opened) -> None:
    journal.begin(key("a"), Fence(0, 1))
    journal.begin(key("b"), Fence(0, 2))
    assert journal.begin(key("c"), Fence(0, 1)) == Refused(Refusal.STALE_FENCE)


def test_a_known_attempt_takes_over_the_greater_fence_and_keeps_it_against_a_lesser(journal: Opened) -> None:
    journal.begin(fence=Fence(0, 1))
    for asked, kept in ((Fence(0, 3), Fence(0, 3)), (Fence(0, 2), Fence(0, 3))):
        answer = journal.begin(fence=asked)
        assert isinstance(answer, Known)
        assert answer.record.fence == kept
    assert journal.begin(key("b"), Fence(0, 2)) == Refused(Refusal.STALE_FENCE)


def test_inspecting_binds_the_fence(journal: Opened) -> None:
    assert journal.inspect(fence=Fence(0, 2)) is None
    journal.reopen()
    assert journal.begin(fence=Fence(0, 1)) == Refused(Refusal.STALE_FENCE)


def test_the_same_key_with_another_action_is_refused(journal: Opened) -> None:
    journal.begin()
    answer = journal.begin(digest="b3:" + "2" * 64)
    assert isinstance(answer, Refused)
    assert answer.reason is Refusal.OTHER_ACTION
    assert answer.record == journal.find()


def test_a_tombstone_never_begins_whatever_its_action(journal: Opened) -> None:
    journal.entomb()
    journal.reopen()
    answer = journal.begin()
    assert isinstance(answer, Known)
    assert (answer.record.state, answer.record.outcome) == (State.TOMBSTONE, b"cancelled")
    assert journal.release()
    assert state(journal) is State.RELEASED
    assert isinstance(journal.begin(), Known)


def test_what_is_known_is_not_entombed(journal: Opened) -> None:
    journal.begin()
    journal.finish()
    entombed = journal.entomb()
    assert isinstance(entombed, Record)
    assert entombed.outcome == b"outcome"


def test_an_overtaken_owner_entombs_nothing(journal: Opened) -> None:
    journal.inspect(fence=Fence(0, 2))
    assert journal.entomb(fence=Fence(0, 1)) == Refused(Refusal.STALE_FENCE)
    assert isinstance(journal.begin(fence=Fence(0, 2)), Begun)


def test_what_was_begun_by_a_dead_process_is_lost(journal: Opened) -> None:
    journal.begin(key("ran"))
    journal.finish(key("ran"))
    journal.begin(key("cut off"))
    journal.reopen()
    assert (state(journal, key("ran")), state(journal, key("cut off"))) == (State.DONE, State.LOST)
    assert {record.key.step_id for record in journal.unreleased()} == {"ran", "cut off"}
    assert isinstance(journal.begin(key("cut off")), Known)
    assert journal.release(key("cut off"))


@pytest.mark.parametrize("before", ["nothing", "finish", "entomb"])
def test_only_what_is_begun_can_be_finished(journal: Opened, before: str) -> None:
    if before == "finish":
        journal.begin()
        journal.finish()
    elif before == "entomb":
        journal.entomb()
    with pytest.raises(Internal, match="cannot be finished"):
        journal.finish()


def test_the_end_of_a_run_forgets_its_keys_and_refuses_late_ones(journal: Opened) -> None:
    journal.begin()
    journal.finish()
    journal.begin(key(run="other"))
    journal.end_run()
    assert journal.find() is None
    assert journal.begin() == Refused(Refusal.RUN_ENDED)
    assert journal.entomb() == Refused(Refusal.RUN_ENDED)
    assert [record.key.run_id for record in journal.unreleased()] == ["other"]


def test_what_still_runs_survives_the_end_of_its_run_until_it_is_released(journal: Opened) -> None:
    journal.begin()
    journal.end_run()
    journal.finish()
    assert [record.state for record in journal.unreleased()] == [State.DONE]
    journal.release()
    assert journal.find() is None


def test_letting_go_of_what_outlived_its_run_forgets_no_key_of_another(journal: Opened) -> None:
    other = key(run="other")
    journal.begin(other)
    journal.finish(other)
    journal.release(other)
    journal.begin()
    journal.end_run()
    journal.finish()
    journal.release()
    assert journal.find() is None
    assert state(journal, other) is State.RELEASED


def test_ended_runs_are_remembered_up_to_a_bound(journal: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "ENDED_RUNS_KEPT", 2)
    journal.begin(key(run="goes on"))
    for run in ("1", "2", "3"):
        journal.end_run(run)
    assert isinstance(journal.begin(key(run="1")), Begun)
    assert journal.begin(key(run="3")) == Refused(Refusal.RUN_ENDED)
    assert journal.begin(key("late", run="goes on"), Fence(0, 0)) == Refused(Refusal.STALE_FENCE)


def test_the_id_belongs_to_the_file(journal: Opened, tmp_path: Path) -> None:
    first = journal.journal_id()
    journal.reopen()
    assert journal.journal_id() == first
    journal.close()
    for file in tmp_path.glob("journal.db*"):
        file.unlink()
    journal.reopen()
    assert journal.journal_id() != first


def test_two_holders_are_refused_by_name(journal: Opened, tmp_path: Path) -> None:
    with pytest.raises(Precondition, match=r"in use by process \d+") as refused, _second(tmp_path):
        pass
    assert refused.value.reason == "DATA_IN_USE"


def test_children_do_not_inherit_the_hold(journal: Opened, tmp_path: Path) -> None:
    # What it says tells that it runs: until then the kernel may not have closed what it does not inherit.
    command = [sys.executable, "-c", "print(flush=True); input()"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        journal.close()
        with _second(tmp_path):
            assert child.poll() is None
    finally:
        child.communicate(b"\n")


def test_a_damaged_file_is_reported_with_what_to_do(journal: Opened, tmp_path: Path) -> None:
    journal.close()
    (tmp_path / "journal.db").write_bytes(b"no database" * 1000)
    for file in ("journal.db-wal", "journal.db-shm"):
        (tmp_path / file).unlink(missing_ok=True)
    with pytest.raises(DataLoss, match="move it and its -wal and -shm files away") as refused, _second(tmp_path):
        pass
    assert refused.value.reason == "WORKER_JOURNAL_FAILED"


def test_a_file_of_a_newer_version_is_not_touched(journal: Opened, tmp_path: Path) -> None:
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(Precondition) as refused, _second(tmp_path):
        pass
    assert refused.value.reason == "JOURNAL_TOO_NEW"


def test_what_raises_inside_a_transaction_leaves_nothing(journal: Opened) -> None:
    def half_done() -> None:
        with journal.bare.transaction():
            journal.bare.begin(key(), FENCE, DIGEST, ONCE)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half_done()
    assert journal.find() is None


def test_nothing_is_written_outside_a_transaction(journal: Opened) -> None:
    with pytest.raises(Internal, match="inside transaction"):
        journal.bare.begin(key(), FENCE, DIGEST, ONCE)


def test_a_commit_is_flushed_to_the_disk(journal: Opened) -> None:
    database = journal.bare._database  # pyright: ignore[reportPrivateUsage]  # these belong to the connection
    assert database.execute("PRAGMA synchronous").fetchone() == (2,)
    assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def _second(folder: Path) -> ExitStack:
    stack = ExitStack()
    clock = ManualClock()
    stack.enter_context(open_journal(folder, clock=clock, ids=system_ids(clock)))
    return stack
