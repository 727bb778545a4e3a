"""Our journal under the bench's load: each step is one durable append of a result and the next intent.

python -m tests.peers.journal_steps FOLDER SECONDS AT_ONCE...
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import uvloop
from sqlalchemy import Connection

from control.journal import Append, EventDraft, Journal, NewRun, open_journal
from infra.clock import SystemClock
from infra.db import open_database
from infra.db.engine import SQLITE_VERSION
from infra.ids import Ids, system_ids
from tests.peers.measure import PAYLOAD, STEPS, Run, measure, say_settings

_RESULT_AND_INTENT = (EventDraft(7, PAYLOAD), EventDraft(5, PAYLOAD))


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


def _pragmas(connection: Connection) -> dict[str, str]:
    names = ("journal_mode", "synchronous")
    return {name: str(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()) for name in names}


async def main(folder: Path, seconds: float, at_once: list[int]) -> None:
    clock = SystemClock()
    ids = system_ids(clock)
    async with open_database(folder / "journal.db") as db, open_journal(db, clock=clock) as journal:
        settings = await db.transact(_pragmas)
        say_settings("journal", **settings, sqlite=SQLITE_VERSION, payload="2 events of 200 B a step", loop="uvloop")
        for runs in at_once:
            await measure("journal", _twenty_steps(journal, ids), at_once=runs, seconds=seconds)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), float(sys.argv[2]), [int(each) for each in sys.argv[3:]]))
