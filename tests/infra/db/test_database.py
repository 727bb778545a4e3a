import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from infra.db import Database, DatabaseSettings, open_database
from infra.db.engine import DriverError, driver_is_safe
from infra.errors import DataLoss, Exhausted, Precondition, SkyError, Unavailable

SMALL = DatabaseSettings(busy_ms=50, capacity=2)


@pytest.fixture
async def db(tmp_path: Path) -> AsyncGenerator[Database]:
    async with open_database(tmp_path / "data" / "test.db") as database:
        await database.transact(make_table)
        yield database


def make_table(connection: Connection) -> None:
    connection.exec_driver_sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")


def note(connection: Connection, number: int) -> int:
    connection.exec_driver_sql("INSERT INTO notes VALUES (?, 'x')", (number,))
    return number


def noting(number: int) -> Callable[[Connection], int]:
    return lambda connection: note(connection, number)


def numbers(connection: Connection) -> list[int]:
    return list(connection.exec_driver_sql("SELECT id FROM notes ORDER BY id").scalars())


@asynccontextmanager
async def stalled(db: Database) -> AsyncGenerator[None]:
    """Keeps the writer busy, so that what is written meanwhile becomes one batch."""
    entered, gate = threading.Event(), threading.Event()

    def wait(_connection: Connection) -> None:
        entered.set()
        gate.wait(10)

    waiting = asyncio.ensure_future(db.transact(wait))
    await asyncio.to_thread(entered.wait, 10)
    try:
        yield
    finally:
        gate.set()
        await waiting


async def started(program: str, argument: str) -> asyncio.subprocess.Process:
    """A Python program that has said that it is ready, and ends when its input does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, argument), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process


def test_the_driver_has_the_fix_of_the_wal_reset_bug() -> None:
    assert driver_is_safe()


async def test_commits_are_synced_and_logged_ahead(db: Database) -> None:
    def pragmas(connection: Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    assert await db.transact(pragmas) == ["wal", 2, 1]


async def test_what_a_transaction_returns_is_returned_and_readable(db: Database) -> None:
    assert await db.transact(lambda connection: note(connection, 7)) == 7
    assert await db.read(numbers) == [7]


async def test_a_transaction_that_fails_undoes_itself_alone(db: Database) -> None:
    def fail(connection: Connection) -> None:
        note(connection, 2)
        raise LookupError("no")

    async with stalled(db):
        writing = [asyncio.ensure_future(db.transact(run)) for run in (noting(1), fail, noting(1), noting(3))]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [type(outcome).__name__ for outcome in outcomes] == ["int", "LookupError", "IntegrityError", "int"]
    assert await db.read(numbers) == [1, 3]


async def test_a_cancelled_waiter_does_not_cancel_its_transaction(db: Database) -> None:
    told: list[int] = []
    async with stalled(db):
        waiter = asyncio.ensure_future(db.transact(noting(1), committed=told.append))
        await asyncio.sleep(0)
        waiter.cancel()
    await db.transact(noting(2))
    assert await db.read(numbers) == [1, 2]
    assert told == [1]


async def test_nothing_is_told_of_a_transaction_that_failed(db: Database) -> None:
    told: list[int] = []
    await db.transact(noting(1), committed=told.append)
    with pytest.raises(Exception, match="UNIQUE"):
        await db.transact(noting(1), committed=told.append)
    assert told == [1]


async def test_a_full_queue_makes_writers_wait_and_one_who_gives_up_has_written_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path / "test.db", settings=SMALL) as db:
        await db.transact(make_table)
        async with stalled(db):  # takes one of two places
            second = asyncio.ensure_future(db.transact(noting(1)))
            third = asyncio.ensure_future(db.transact(noting(2)))
            fourth = asyncio.ensure_future(db.transact(noting(3)))
            await asyncio.sleep(0)
            third.cancel()
            await asyncio.sleep(0)
            assert (second.done(), third.cancelled(), fourth.done()) == (False, True, False)
        await asyncio.gather(second, fourth)
        assert await db.read(numbers) == [1, 3]


class Numbers:
    """A handler that remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.told: list[int] = []

    def apply(self, connection: Connection, items: Sequence[int]) -> Sequence[int | SkyError]:
        self.batches.append(list(items))
        for item in items:
            note(connection, item)
        return list(items)

    def topics(self, items: Sequence[int]) -> Sequence[str]:
        return ()

    def committed(self, results: Sequence[int]) -> None:
        self.told.extend(results)


async def test_what_waits_together_is_written_together(db: Database) -> None:
    handler = Numbers()
    async with stalled(db):
        writing = [asyncio.ensure_future(db.write(handler, n, key=str(n))) for n in range(20)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*writing) == list(range(20))
    assert handler.batches == [list(range(20))]
    assert handler.told == list(range(20))


async def test_a_second_item_of_a_key_waits_for_the_next_batch_and_none_overtakes(db: Database) -> None:
    handler = Numbers()
    async with stalled(db):
        writing = [asyncio.ensure_future(db.write(handler, n, key="ab"[n % 2])) for n in range(6)]
        await asyncio.sleep(0)
    await asyncio.gather(*writing)
    assert handler.batches == [[0, 1], [2, 3], [4, 5]]


async def test_a_batch_is_split_until_the_bad_item_stands_alone(db: Database) -> None:
    handler = Numbers()
    await db.transact(noting(5))
    async with stalled(db):
        writing = [asyncio.ensure_future(db.write(handler, n, key=str(n))) for n in range(8)]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert [n for n, outcome in enumerate(outcomes) if isinstance(outcome, SkyError)] == [5]
    assert await db.read(numbers) == list(range(8))
    assert sorted(handler.told) == [0, 1, 2, 3, 4, 6, 7]


async def test_a_reader_cannot_write(db: Database) -> None:
    with pytest.raises(Exception, match="readonly"):
        await db.read(noting(1))


async def test_a_reader_sees_one_moment_however_long_it_reads(db: Database) -> None:
    await db.transact(noting(1))
    began, go_on = threading.Event(), threading.Event()

    def read_twice(connection: Connection) -> list[list[int]]:
        first = numbers(connection)
        began.set()
        go_on.wait(10)
        return [first, numbers(connection)]

    reading = asyncio.ensure_future(db.read(read_twice))
    await asyncio.to_thread(began.wait, 10)
    await db.transact(noting(2))
    go_on.set()
    assert await reading == [[1], [1]]
    assert await db.read(numbers) == [1, 2]


async def test_what_is_queued_when_the_database_closes_is_written(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    async with open_database(path) as db:
        await db.transact(make_table)
        writing = [asyncio.ensure_future(db.transact(noting(n))) for n in range(50)]
        await asyncio.sleep(0)
    assert await asyncio.gather(*writing) == list(range(50))
    with pytest.raises(Unavailable):
        await db.transact(noting(99))
    async with open_database(path) as db:
        assert await db.read(numbers) == list(range(50))


async def test_another_program_that_holds_the_lock_makes_a_write_fail_and_later_ones_work(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    async with open_database(path, settings=SMALL) as db:
        await db.transact(make_table)
        other = await started(OTHER_WRITER, str(path))
        with pytest.raises(Unavailable) as refused:
            await db.transact(noting(1))
        assert refused.value.reason == "DATABASE_BUSY"
        other.kill()
        await other.wait()
        await db.transact(noting(2))
        assert await db.read(numbers) == [2]


async def test_a_full_disk_refuses_the_write_and_everything_written_before_stays(db: Database) -> None:
    await db.transact(noting(1))
    pages = await db.transact(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await db.transact(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}").scalar_one())
    with pytest.raises(Exhausted) as refused:
        await db.transact(lambda c: c.exec_driver_sql("INSERT INTO notes VALUES (2, ?)", ("x" * 100_000,)))
    assert refused.value.reason == "DISK_FULL"
    await db.transact(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 100000").scalar_one())
    await db.transact(noting(3))
    assert await db.read(numbers) == [1, 3]


HOLDER = """
import sys
from pathlib import Path
from infra.disk import held

with held(Path(sys.argv[1])):
    print(flush=True)
    sys.stdin.read()
"""

OTHER_WRITER = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print(flush=True)
sys.stdin.read()
"""

FAILING_COMMIT = """
import asyncio, resource, sys
from pathlib import Path
from infra.db import open_database

def make_table(connection):
    connection.exec_driver_sql("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")

def grow(connection):
    connection.exec_driver_sql("INSERT INTO notes (text) VALUES (?)", ("x" * 20000,))

async def main():
    async with open_database(Path(sys.argv[1])) as db:
        await db.transact(make_table)
        await db.transact(grow)
        print("acknowledged", flush=True)
        limit = Path(sys.argv[1] + "-wal").stat().st_size + 5000
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        await db.transact(grow)
        print("acknowledged", flush=True)

asyncio.run(main())
"""


async def test_an_error_of_the_disk_at_commit_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    writer = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FAILING_COMMIT, str(path)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await writer.communicate()
    assert (out, writer.returncode) == (b"acknowledged\n", 74)
    assert str(path).encode() in err
    assert b"SQLITE_IOERR" in err
    async with open_database(path) as db:
        assert await db.read(numbers) == [1]


async def test_after_a_failed_commit_every_waiter_learns_that_its_outcome_is_unknown(tmp_path: Path) -> None:
    failures: list[SkyError] = []
    async with open_database(tmp_path / "test.db", on_fatal=failures.append) as db:
        await db.transact(make_table)

        def lose_the_disk(connection: Connection) -> None:
            note(connection, 1)
            error = sqlite3_error()
            raise error

        async with stalled(db):
            writing = [asyncio.ensure_future(db.transact(run)) for run in (noting(2), lose_the_disk)]
            await asyncio.sleep(0)
        outcomes = await asyncio.gather(*writing, return_exceptions=True)
        assert [getattr(outcome, "reason", None) for outcome in outcomes] == ["OUTCOME_UNKNOWN"] * 2
        assert [failure.reason for failure in failures] == ["DATA_UNWRITABLE"]
        with pytest.raises(SkyError):
            await db.transact(noting(3))


def sqlite3_error() -> Exception:
    """What the driver raises when fsync fails."""
    error = DriverError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
    error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
    return error


async def test_data_in_use_is_refused_with_the_pid_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    holder = await started(HOLDER, f"{path}.lock")
    with pytest.raises(Precondition) as refused:
        async with open_database(path):
            pass
    assert (refused.value.reason, refused.value.metadata["pid"]) == ("DATA_IN_USE", str(holder.pid))
    assert f"process {holder.pid}" in refused.value.message
    assert not path.exists()
    holder.kill()
    await holder.wait()
    async with open_database(path):
        pass


async def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    async with open_database(path):
        child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, close_fds=False)
    async with open_database(path):
        pass
    child.kill()
    await child.wait()


@pytest.mark.parametrize("content", [b"this is no database" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "test.db"
    path.write_bytes(content)
    with pytest.raises(DataLoss) as refused:
        async with open_database(path):
            pass
    assert refused.value.reason == "DATABASE_CORRUPT"
    assert str(path) in refused.value.message
    assert path.read_bytes() == content


async def test_a_damaged_page_is_found_when_the_database_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "test.db"
    async with open_database(path) as db:
        await db.transact(make_table)
        for number in range(300):
            await db.transact(noting(number))
    sound = path.read_bytes()
    path.write_bytes(sound[:-4096] + b"\x55" * 4096)
    with pytest.raises(DataLoss):
        async with open_database(path):
            pass


async def test_a_folder_that_cannot_be_made_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Precondition) as refused:
        async with open_database(tmp_path / "file" / "data" / "test.db"):
            pass
    assert refused.value.reason == "DATA_UNWRITABLE"
    assert str(tmp_path / "file" / "data") in refused.value.message


async def test_only_the_owner_may_read_the_files(db: Database) -> None:
    folder = Path(db.system.name).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o077 for file in folder.iterdir()} == dict.fromkeys(
        ("test.db", "test.db-wal", "test.db-shm", "test.db.lock"), 0
    )


async def test_a_batch_holds_no_more_than_its_limit_and_the_rest_follows_in_order(tmp_path: Path) -> None:
    handler = Numbers()
    async with open_database(tmp_path / "test.db", settings=DatabaseSettings(max_batch=4)) as db:
        await db.transact(make_table)
        async with stalled(db):
            writing = [asyncio.ensure_future(db.write(handler, n, key=str(n))) for n in range(10)]
            await asyncio.sleep(0)
        await asyncio.gather(*writing)
    assert handler.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
