"""Our journal under the bench's load: each step is one durable append of a result and the next intent.

python -m tests.peers.journal_steps FOLDER|POSTGRES_URL SECONDS AT_ONCE...
"""

import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from sqlalchemy import Connection

from control.journal import Append, EventDraft, Journal, NewRun, open_journal
from infra.clock import SystemClock
from infra.db import Database, open_database, open_postgres
from infra.db.engine import SQLITE_VERSION
from infra.ids import Ids, system_ids
from tests.peers.measure import PAYLOAD, STEPS, Run, measure, say_settings, say_size

_RESULT_AND_INTENT = (EventDraft(7, PAYLOAD), EventDraft(5, PAYLOAD))
_SIZE_ON_POSTGRES = "SELECT pg_database_size(current_database())"


def _twenty_steps(journal: Journal, ids: Ids) -> Run:
    async def run(tell: Callable[[float], None]) -> None:
        first = (EventDraft(1, PAYLOAD),)
        head = await journal.create_run(NewRun(ids.ulid(), ids.ulid(), "bench", 1, first, ids.ulid()))
        seq = head.head_seq
        for _ in range(STEPS):
            start = time.perf_counter()
            append = Append(head.run_id, head.epoch, seq, _RESULT_AND_INTENT, ids.ulid(), control_gen=0)
            seq = (await journal.append(append)).seq
            tell(time.perf_counter() - start)

    return run


@asynccontextmanager
async def _opened(where: str, ids: Ids) -> AsyncGenerator[tuple[str, Database]]:
    """The name under which the figures are told, and the database."""
    if where.startswith("postgresql:"):
        async with open_postgres(where, who=ids.uuid()) as db:
            yield "journal-pg", db
    else:
        async with open_database(Path(where) / "journal.db") as db:
            yield "journal", db


def _settings(connection: Connection) -> dict[str, str]:
    show, names, more = "PRAGMA", ("journal_mode", "synchronous"), {"sqlite": SQLITE_VERSION}
    if connection.dialect.name == "postgresql":
        show, names, more = "SHOW", ("server_version", "fsync", "synchronous_commit", "shared_buffers"), {}
    return more | {name: str(connection.exec_driver_sql(f"{show} {name}").scalar_one()) for name in names}


def _bytes(connection: Connection) -> int:
    """What the database holds, without what the disk holds twice until the next checkpoint."""
    if connection.dialect.name == "postgresql":
        return int(connection.exec_driver_sql(_SIZE_ON_POSTGRES).scalar_one())
    pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in ("page_count", "page_size"))
    return int(pages) * int(size)


async def main(where: str, seconds: float, at_once: list[int]) -> None:
    clock = SystemClock()
    ids = system_ids(clock)
    async with _opened(where, ids) as (name, db), open_journal(db, clock=clock) as journal:
        said = await db.transact(_settings)
        say_settings(name, **said, payload="2 events of 200 B a step", batches="up to 512 appends", loop="uvloop")
        before, steps = await db.transact(_bytes), 0
        for runs in at_once:
            steps += await measure(name, _twenty_steps(journal, ids), at_once=runs, seconds=seconds)
        say_size(name, (await db.transact(_bytes) - before) / steps)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], float(sys.argv[2]), [int(each) for each in sys.argv[3:]]))
