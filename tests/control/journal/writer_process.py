"""Appends to its runs as fast as it can and says each acknowledged append on stdout, until it is killed.

python -m tests.control.journal.writer_process DATABASE RUNS
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from control.journal import EventDraft, Projection, RunHead
from tests.control.journal.world import World, opened


async def write(world: World, run: RunHead) -> None:
    seq = run.head_seq
    while True:
        events = [EventDraft(7, b"result " * 20), EventDraft(5, b"intent")]
        append = replace(world.result(run, *events), expect_seq=seq, projection=Projection("RUNNING", b"%d" % seq))
        written = await world.journal.append(append)
        seq = written.seq
        sys.stdout.write(f"{run.run_id} {written.seq} {written.hash.hex()}\n")
        sys.stdout.flush()


async def main(path: Path, runs: int) -> None:
    async with opened(path) as world:
        owned = [await world.owned() for _ in range(runs)]
        async with asyncio.TaskGroup() as group:
            for run in owned:
                group.create_task(write(world, run))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
