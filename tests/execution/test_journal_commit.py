"""Group commit: what is answered is on disk, one bad piece harms no other, and broken storage is told to everybody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from execution.attempts import AttemptKey, Fence
from execution.committer import Committer, committing
from execution.journal import DriverError, Journal, open_journal
from infra.clock import ManualClock
from infra.errors import DataLoss, Internal
from infra.ids import system_ids


@pytest.fixture
def journal(tmp_path: Path) -> Generator[Journal]:
    clock = ManualClock()
    with open_journal(tmp_path, clock=clock, ids=system_ids(clock)) as opened:
        yield opened


def begun(step: int) -> AttemptKey:
    return AttemptKey("run", str(step), 1)


def begin(step: int, journal: Journal) -> int:
    journal.begin(begun(step), Fence(0, 1), "b3:x", 1)
    return step


async def test_what_is_answered_is_on_disk(journal: Journal) -> None:
    with committing(journal) as committer:
        await committer.submit(lambda journal: begin(1, journal))
        reader = sqlite3.connect(journal.path)
        assert reader.execute("SELECT step_id FROM steps").fetchall() == [("1",)]
        reader.close()


async def test_what_waits_together_is_committed_together_and_in_order(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = 0
    transaction = journal.transaction

    def counted() -> object:
        nonlocal commits
        commits += 1
        return transaction()

    monkeypatch.setattr(journal, "transaction", counted)
    order: list[int] = []

    def note(step: int, journal: Journal) -> int:
        order.append(step)
        return begin(step, journal)

    with committing(journal) as committer:
        blocked = threading.Event()
        first = committer.submit(lambda _: blocked.wait(20))
        waiting = [committer.submit(lambda journal, step=step: note(step, journal)) for step in range(50)]
        blocked.set()
        assert await first
        assert [await answer for answer in waiting] == list(range(50))
    assert order == list(range(50))
    assert commits <= 2


async def test_work_that_raises_undoes_only_itself(journal: Journal) -> None:
    def bad(journal: Journal) -> None:
        begin(2, journal)
        raise ZeroDivisionError

    with committing(journal) as committer:
        answers = [
            committer.submit(lambda journal: begin(1, journal)),
            committer.submit(bad),
            committer.submit(lambda journal: begin(3, journal)),
        ]
        assert await answers[0] == 1
        with pytest.raises(ZeroDivisionError):
            await answers[1]
        assert await answers[2] == 3
        rows = await committer.submit(lambda journal: [record.key.step_id for record in journal.unreleased()])
        assert rows == ["1", "3"]


async def test_a_waiter_that_gives_up_does_not_take_its_work_back(journal: Journal) -> None:
    with committing(journal) as committer:
        blocked = threading.Event()
        committer.submit(lambda _: blocked.wait(20))
        abandoned = committer.submit(lambda journal: begin(1, journal))
        abandoned.cancel()
        blocked.set()
        found = await committer.submit(lambda journal: journal.find(begun(1)))
        assert found is not None


async def test_leaving_waits_for_everything_that_was_submitted(journal: Journal) -> None:
    with committing(journal) as committer:
        answers = [committer.submit(lambda journal, step=step: begin(step, journal)) for step in range(600)]
    with journal.transaction():
        assert len(journal.unreleased()) == 600
    assert [await answer for answer in answers] == list(range(600))


async def test_broken_storage_fails_everything_and_is_told(journal: Journal) -> None:
    def broken(_: Journal) -> None:
        raise DriverError("disk I/O error")

    with committing(journal) as committer:
        watch = asyncio.ensure_future(committer.broken())
        for work in (broken, Journal.journal_id):
            with pytest.raises(DataLoss, match="disk I/O error"):
                await _submitted(committer, work)
        with pytest.raises(DataLoss):
            await watch


async def test_a_failing_commit_answers_nobody_with_success(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    def uncommitted() -> object:
        raise MemoryError

    monkeypatch.setattr(journal, "transaction", uncommitted)
    with committing(journal) as committer:
        with pytest.raises(Internal, match="MemoryError"):
            await committer.submit(Journal.journal_id)
        with pytest.raises(Internal):
            await committer.broken()


async def _submitted(committer: Committer, work: object) -> None:
    await committer.submit(work)  # type: ignore[arg-type]


def _ended_by_the_disk(journal: Journal) -> None:
    # As SQLite does by itself when the disk is full.
    journal._database.execute("ROLLBACK")  # pyright: ignore[reportPrivateUsage]
    raise DriverError("database or disk is full")


def _inside_a_savepoint(journal: Journal) -> None:
    with journal.savepoint():
        _ended_by_the_disk(journal)


@pytest.mark.parametrize("write", [_ended_by_the_disk, _inside_a_savepoint])
def test_what_ended_a_transaction_is_told_even_when_the_database_ended_it_first(
    journal: Journal, write: Callable[[Journal], None]
) -> None:
    with pytest.raises(DriverError, match="disk is full"), journal.transaction():
        write(journal)
    with journal.transaction():
        assert begin(1, journal) == 1
