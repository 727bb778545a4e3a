"""The faults of a proof are planned, hit what they name, and are over when they say so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import records
from evals.end_to_end.kills import ANNOUNCED_S, RECOVER_S, Kill, Plan, Saboteur, Strike, kill, plan_for
from evals.end_to_end.mesh import Part
from evals.end_to_end.rehearsal import Conduct, RehearsalMesh, rehearsal
from evals.sites.fault_proxy import Phase, Save
from evals.sites.ledger import Account
from infra.clock import Clock, ManualClock, SystemClock
from infra.errors import DeadlineExceeded, InvalidArgument
from infra.ids import seeded_ids


@given(st.integers())
def test_each_part_is_struck_once_and_no_record_suffers_twice(seed: int) -> None:
    invoices = records.make(seeded_ids(seed, SystemClock()))
    plan = plan_for(invoices, records.LIMIT)
    hit = [*(strike.number for strike in plan.strikes), plan.lie]
    assert {strike.part for strike in plan.strikes} == set(Part)
    assert len(set(hit)) == 5
    above = next(invoice.number for invoice in invoices if invoice.amount > records.LIMIT)
    assert above not in hit
    assert {strike.phase for strike in plan.strikes} == set(Phase)


def test_too_few_records_for_the_faults_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="8 records below the limit"):
        plan_for(records.make(seeded_ids(1, SystemClock()), count=9), records.LIMIT)


async def test_a_kill_is_over_when_the_process_is_gone() -> None:
    child = await asyncio.create_subprocess_exec("sleep", "600")
    await kill(child.pid)
    assert await child.wait() == -9


async def test_killing_nobody_is_an_error() -> None:
    child = await asyncio.create_subprocess_exec("true")
    await child.wait()
    with pytest.raises(ProcessLookupError):
        await kill(child.pid)


def save(number: str) -> Save:
    return Save(1, "/admin/ledger/invoice/add/", {"number": number})


NOBODY = Account("", "", "")
STRIKE_ENVOY = Plan((Strike(Part.ENVOY, "INV-1", Phase.BEFORE_FORWARD),), lie="")


class Told:
    """What the saboteur said, in order."""

    def __init__(self) -> None:
        self.announced: list[tuple[Kill, bool]] = []
        self.recovered: list[Kill] = []
        self.lied: list[str] = []

    def announce(self, coming: Kill) -> None:
        self.announced.append((coming, Path(f"/proc/{coming.pid}").exists()))


async def decoy() -> str:
    return "http://decoy/"


def saboteur(plan: Plan, mesh: RehearsalMesh, tasks: asyncio.TaskGroup, told: Told, clock: Clock) -> Saboteur:
    return Saboteur(
        plan,
        mesh,
        clock,
        tasks,
        announce=told.announce,
        recovered=told.recovered.append,
        lied=lambda lie: told.lied.append(lie.fields["number"]),
        decoy=decoy,
    )


async def test_a_strike_is_announced_with_the_pid_of_a_living_process_then_done_once_and_recovery_is_seen() -> None:
    told = Told()
    async with rehearsal(Conduct.CAREFUL, NOBODY, SystemClock()) as mesh, asyncio.TaskGroup() as tasks:
        villain = saboteur(STRIKE_ENVOY, mesh, tasks, told, SystemClock())
        await villain.on_save(save("INV-2"), Phase.BEFORE_FORWARD)
        await villain.on_save(save("INV-1"), Phase.AFTER_FORWARD)
        assert told.announced == []
        await villain.on_save(save("INV-1"), Phase.BEFORE_FORWARD)
        await villain.on_save(save("INV-1"), Phase.BEFORE_FORWARD)
        await villain.all_back()
    ((announced, was_alive),) = told.announced
    assert was_alive
    assert villain.kills == told.recovered == [announced]
    assert announced.back_pid not in (0, announced.pid)
    assert announced.back_s > 0


async def test_one_save_of_the_chosen_record_is_answered_falsely_and_only_the_first() -> None:
    told = Told()
    async with rehearsal(Conduct.CAREFUL, NOBODY, SystemClock()) as mesh, asyncio.TaskGroup() as tasks:
        villain = saboteur(Plan((), lie="INV-9"), mesh, tasks, told, SystemClock())
        answers = [await villain.divert(save(number)) for number in ("INV-1", "INV-9", "INV-9")]
    assert answers == [None, "http://decoy/", None]
    assert villain.lies == told.lied == ["INV-9"]


class Dead(RehearsalMesh):
    """A mesh whose killed part never runs again."""

    async def pids(self) -> Mapping[Part, int]:
        return {Part.ENVOY: self.envoy}

    envoy = 0


async def test_a_part_that_never_comes_back_is_given_up_and_told_by_its_absence() -> None:
    clock = ManualClock()
    child = await asyncio.create_subprocess_exec("sleep", "600")
    told = Told()
    async with asyncio.TaskGroup() as tasks:
        mesh = Dead(Conduct.CAREFUL, NOBODY, clock, tasks)
        mesh.envoy = child.pid
        villain = saboteur(STRIKE_ENVOY, mesh, tasks, told, clock)
        striking = tasks.create_task(villain.on_save(save("INV-1"), Phase.BEFORE_FORWARD))
        await clock.until_sleeping()
        await clock.advance(ANNOUNCED_S)
        await striking
        await clock.until_sleeping()
        await clock.advance(RECOVER_S + 1)
        await villain.all_back()
    await child.wait()
    assert told.recovered == []
    assert [done.back_pid for done in villain.kills] == [0]


async def test_a_part_that_is_not_there_to_be_killed_is_an_error() -> None:
    clock = ManualClock()
    async with asyncio.TaskGroup() as tasks:
        villain = saboteur(STRIKE_ENVOY, Dead(Conduct.CAREFUL, NOBODY, clock, tasks), tasks, Told(), clock)
        striking = tasks.create_task(failure_of(villain))
        await clock.until_sleeping()
        await clock.advance(60)
        assert "Envoy did not run" in await striking
    assert villain.kills == []


async def failure_of(villain: Saboteur) -> str:
    with pytest.raises(DeadlineExceeded) as failed:
        await villain.on_save(save("INV-1"), Phase.BEFORE_FORWARD)
    return str(failed.value)
