"""What counting costs: processor time of an append with and without metrics, in turn, in one process.

python -m tests.peers.bench_metrics [ROUNDS]
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import uvloop

from control.journal import Append, EventDraft, Journal, NewRun, open_journal
from infra.clock import SystemClock
from infra.db import DatabaseSettings, open_database
from infra.ids import Ids, system_ids
from infra.metrics import NO_METRICS, Metrics
from tests.peers.measure import PAYLOAD

RUNS, STEPS = 64, 40
_FAST = DatabaseSettings(synchronous="OFF")
"""The disk is not what is measured."""


async def appended(journal: Journal, ids: Ids) -> float:
    """Processor time of an append, in microseconds."""
    first, step = (EventDraft(1, PAYLOAD),), (EventDraft(7, PAYLOAD), EventDraft(5, PAYLOAD))

    async def one() -> None:
        head = await journal.create_run(NewRun(ids.ulid(), ids.ulid(), "bench", 1, first, ids.ulid()))
        seq = head.head_seq
        for _ in range(STEPS):
            seq = (await journal.append(Append(head.run_id, head.epoch, seq, step, ids.ulid(), control_gen=0))).seq

    begun = time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(RUNS):
            group.create_task(one())
    return (time.process_time() - begun) / (RUNS * STEPS) * 1e6


async def main(rounds: int) -> None:
    clock = SystemClock()
    ids = system_ids(clock)
    with TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            journals: list[Journal] = []
            for number, metrics in enumerate((NO_METRICS, Metrics(clock.monotonic))):
                path = Path(folder) / f"{number}" / "journal.db"
                db = await stack.enter_async_context(open_database(path, settings=_FAST, metrics=metrics))
                journals.append(await stack.enter_async_context(open_journal(db, clock=clock, metrics=metrics)))
            took = [[await appended(journal, ids) for journal in journals] for _ in range(rounds)]
    without, counted = (median(each) for each in zip(*took, strict=True))
    costs = median(after - before for before, after in took)
    print(
        f"append without metrics {without:6.1f} us, with {counted:6.1f} us of processor time, {rounds} rounds in turn"
    )
    print(f"counting costs {costs:.2f} us an append: {costs / without:.1%}")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 15))
