"""Somebody sets the clock by an hour, either way, while a run is under way: nothing ends, waits or is used up."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control.core.budget import shortage, used
from control.core.finish import overdue
from control.core.meters import WALL_TIME
from control.core.run import FOLD_VERSION
from control.journal import Node, open_journal
from control.orchestrator.ledger import Ledger
from infra.clock import ManualClock
from infra.db import open_database
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import IDS, ControlPlane, noop, settings_in

HOUR = 3_600
JUMPS = pytest.mark.parametrize("jump", [HOUR, -HOUR])


@asynccontextmanager
async def owned(folder: Path) -> AsyncGenerator[tuple[ManualClock, Ledger]]:
    """A run that may take ten minutes, in the hands of its owner."""
    clock, path = ManualClock(), settings_in(folder).journal_path
    async with open_database(path) as database, open_journal(database, clock=clock) as journal:
        plane = ControlPlane(None, journal)  # pyright: ignore[reportArgumentType] -- nothing is served
        await plane.start([noop("look")], draws=[ev.Draw(kind=WALL_TIME, from_tenant=True)])
        head, *_ = await journal.claim(Node("node-1", IDS.uuid()), fold_version=FOLD_VERSION, limit=1)
        ledger = Ledger(journal, clock, IDS, head)
        await ledger.load()
        granted = ev.BudgetGranted(grant_id="g", kind=WALL_TIME, amount=600_000)
        changed = ev.OwnerChanged(node_id="node-1")
        await ledger.commit([ev.EventBody(owner_changed=changed), ev.EventBody(budget_granted=granted)])
        yield clock, ledger


@JUMPS
async def test_a_deadline_comes_when_its_time_is_over_and_not_when_the_clock_is_set(tmp_path: Path, jump: int) -> None:
    async with owned(tmp_path) as (clock, ledger):
        deadline = cmd.DeadlineCommand()
        deadline.deadline.FromMilliseconds(clock.now_ms() + 30 * 60_000)
        applied = ev.CommandApplied(command=cmd.Command(deadline=deadline))
        await ledger.commit([ev.EventBody(command_applied=applied)])
        clock.jump(jump)
        assert not overdue(ledger.state, ledger.clock.now_ms())
        await clock.advance(27 * 60)
        assert not overdue(ledger.state, ledger.clock.now_ms())
        await clock.advance(7 * 60)
        assert overdue(ledger.state, ledger.clock.now_ms())


@JUMPS
async def test_a_budget_of_time_is_used_up_by_time_and_not_by_a_clock_that_is_set(tmp_path: Path, jump: int) -> None:
    async with owned(tmp_path) as (clock, ledger):
        await clock.advance(60)
        clock.jump(jump)
        assert shortage(ledger.folded, ledger.clock.now_ms()) is None
        await ledger.commit([ev.EventBody(plan_extended=ev.PlanExtended(nodes=[noop("more")]))])
        await clock.advance(60)
        spent_ms = used(ledger.folded, WALL_TIME, ledger.clock.now_ms())
        assert 108_000 <= spent_ms <= 132_000  # two minutes, give or take a tenth
        assert shortage(ledger.folded, ledger.clock.now_ms()) is None


@JUMPS
async def test_a_retry_waits_for_its_delay_and_not_for_a_clock_that_is_set(tmp_path: Path, jump: int) -> None:
    async with owned(tmp_path) as (clock, ledger):
        not_before_ms = ledger.clock.now_ms() + 8_000
        clock.jump(jump)
        assert ledger.clock.now_ms() < not_before_ms
        await clock.advance(9)
        assert ledger.clock.now_ms() >= not_before_ms


@JUMPS
async def test_the_events_of_a_run_stay_in_the_order_of_their_times(tmp_path: Path, jump: int) -> None:
    async with owned(tmp_path) as (clock, ledger):
        for set_by in (0, jump, 0):
            await clock.advance(1)
            clock.jump(set_by)
            await ledger.commit([ev.EventBody(plan_extended=ev.PlanExtended(nodes=[noop("more")]))])
        times = [event.time_ms for event in await ledger.journal.read(ledger.head.run_id)]
        assert times == sorted(times)
        assert times[-1] - times[-2] < 1_200
