"""Whoever drives runs is killed again and again: no grant is made twice, and nothing that was left is lost."""

import asyncio
import sys
from pathlib import Path

from control.budgets import BudgetKey, Escrow
from control.core.meters import STEPS, meter
from control.core.run import FOLD_VERSION, terminal
from control.journal import EventDraft, NewRun, SqlJournal
from control.journal.folding import folded_run
from control.orchestrator.drawing import Returns
from infra.db import open_database
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from tests.control.budgets.spender_process import CLOCK, IDS, STEPS_OF_A_RUN, main
from tests.control.orchestrator.harness import noop

TENANTS = BudgetKey("default", STEPS)
RUNS = 6
KILLED_AFTER = (1, 7, 23, 40)
"""Steps after which each owner is killed, in the middle of whatever the other runs do."""


async def begun(journal: SqlJournal) -> str:
    spec = mission.MissionSpec(goal="spend", template="self_test")
    created = ev.RunCreated(mission_id=IDS.ulid(), tenant="default", spec=spec, fold_version=FOLD_VERSION)
    drawn = ev.RunBudgeted(draws=[ev.Draw(kind=STEPS, from_tenant=True)])
    bodies = (
        ev.EventBody(run_created=created),
        ev.EventBody(run_budgeted=drawn),
        ev.EventBody(plan_extended=ev.PlanExtended(nodes=[noop("spend")])),
    )
    events = tuple(EventDraft.of(body) for body in bodies)
    run_id = IDS.ulid()
    await journal.create_run(NewRun(run_id, created.mission_id, "default", FOLD_VERSION, events, IDS.ulid()))
    return run_id


async def killed(folder: Path, after: int) -> None:
    command = (sys.executable, "-m", "tests.control.budgets.spender_process", str(folder))
    spender = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert spender.stdout is not None
    for _ in range(after):
        await spender.stdout.readline()
    spender.kill()
    await spender.wait()


async def test_owners_that_are_killed_leave_no_grant_twice_and_nothing_unreturned(tmp_path: Path) -> None:
    async with open_database(tmp_path / "journal.db") as database:
        await Escrow(database, CLOCK).set_limit(TENANTS, RUNS * STEPS_OF_A_RUN + 1, "ann")
        runs = [await begun(SqlJournal(database, CLOCK)) for _ in range(RUNS)]
    for after in KILLED_AFTER:
        await killed(tmp_path, after)
    await main(tmp_path)  # the last owner lives, and finishes what the others left half done
    async with open_database(tmp_path / "journal.db") as database:
        journal, escrow = SqlJournal(database, CLOCK), Escrow(database, CLOCK)
        await Returns(journal, escrow, CLOCK).look()
        spent = 0
        for run_id in runs:
            state = (await folded_run(journal, run_id)).folded.state
            found = meter(state, STEPS)
            assert found is not None
            assert terminal(state.phase)
            assert (found.spent, found.reserved) == (STEPS_OF_A_RUN, 0)
            assert found.spent <= found.allotted
            assert len(set(state.grant_ids)) == len(state.grant_ids)
            spent += found.spent
        budget = await escrow.find(TENANTS)
        assert (budget.spent, budget.allotted, budget.left) == (spent, 0, 1)
        held = {one.run_id: one.granted for one in await escrow.held(TENANTS)}
        allotted = [meter((await folded_run(journal, run_id)).folded.state, STEPS) for run_id in runs]
        assert [found and found.allotted for found in allotted] == [held[run_id] for run_id in runs]
