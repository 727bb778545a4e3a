"""Owns every run there is and lets each draw, use and give back as fast as it can, until it is killed.

python -m tests.control.budgets.spender_process FOLDER
"""

import asyncio
import sys
from pathlib import Path

from control.budgets import Escrow
from control.core.meters import STEPS
from control.core.moves import Draw
from control.core.run import FOLD_VERSION
from control.journal import Node, RunHead, SqlJournal
from control.orchestrator.drawing import Drawing
from control.orchestrator.ledger import Ledger
from infra.clock import SystemClock
from infra.db import open_database
from infra.ids import system_ids
from skyagent.run.v1 import event_pb2 as ev

CLOCK = SystemClock()
IDS = system_ids(CLOCK)
STEPS_OF_A_RUN = 25


async def spend(journal: SqlJournal, escrow: Escrow, head: RunHead) -> None:
    """One run to its end: whatever a former owner left half done is finished on the way."""
    ledger = Ledger(journal, CLOCK, IDS, head)
    await ledger.load()
    drawing, step = Drawing(ledger, escrow), ledger.state.nodes[0]
    while len(step.attempts) < STEPS_OF_A_RUN:
        (meter,) = ledger.state.meters
        while meter.allotted - meter.spent - meter.reserved < 1:
            if not await drawing.draw(Draw(STEPS, 1)):
                await CLOCK.sleep(0.01)
            (meter,) = ledger.state.meters
        step = ledger.state.nodes[0]
        step_id, number = step.node.node_id, len(step.attempts) + 1
        await ledger.commit(
            [
                ev.EventBody(step_intended=ev.StepIntended(step_id=step_id, attempt=number)),
                ev.EventBody(step_finished=ev.StepFinished(step_id=step_id, attempt=number)),
            ]
        )
        step = ledger.state.nodes[0]
        sys.stdout.write(".\n")
        sys.stdout.flush()
    await ledger.commit([ev.EventBody(run_finished=ev.RunFinished(phase=ev.RUN_PHASE_SUCCEEDED))])
    await drawing.give_back()


async def main(folder: Path) -> None:
    async with open_database(folder / "journal.db") as database:
        journal, escrow = SqlJournal(database, CLOCK), Escrow(database, CLOCK)
        heads = await journal.claim(Node("node-1", IDS.uuid()), fold_version=FOLD_VERSION, limit=100)
        async with asyncio.TaskGroup() as group:
            for head in heads:
                group.create_task(spend(journal, escrow, head))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
