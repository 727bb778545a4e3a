"""What a run's owner does when something breaks: it says so, loses nothing, and tries again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import delete

from control.agentfs import AgentFs
from control.core.check import Checks
from control.core.dispatch import next_move
from control.core.moves import Move
from control.core.run import WAITING_FOR_PERSON, RunFold
from control.core.summary import state_digest
from control.journal import Append, Appended, Journal, Snapshot, StaleHead, open_journal
from control.journal.folding import folded_run
from control.journal.schema import run_events
from control.orchestrator import driver as driving
from control.orchestrator.ledger import Ledger
from infra.clock import ManualClock
from infra.db import open_database
from infra.errors import DataLoss, Exhausted
from skyagent.common.v1 import blob_pb2
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane, noop, settings_in, worker
from tests.control.orchestrator.scripted import scripted_worker


async def test_a_run_whose_owner_breaks_says_so_with_an_id_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [RuntimeError("the core is confused")]

    def breaking(folded: RunFold, checks: Checks, now_ms: int) -> Move:
        if left:
            raise left.pop()
        return next_move(folded, checks, now_ms)

    monkeypatch.setattr(driving, "next_move", breaking)
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        run_id = await plane.start(steps="2")
        blocked = (await plane.until(run_id, "run_blocked")).body.run_blocked
        state = await plane.until_ended(run_id)
        kinds = await plane.kinds(run_id)
    assert blocked.reason == "INTERNAL_ERROR"
    assert "RuntimeError: the core is confused (error " in blocked.detail
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert kinds.count("owner_changed") == 1
    assert state.counts.takeovers == 0


async def test_a_command_wakes_a_run_that_rests_after_it_broke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = True

    def breaking(folded: RunFold, checks: Checks, now_ms: int) -> Move:
        if broken:
            raise RuntimeError("not yet")
        return next_move(folded, checks, now_ms)

    monkeypatch.setattr(driving, "next_move", breaking)
    monkeypatch.setattr("control.orchestrator.owner.FIRST_REST", 3600.0)
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start(steps="2")
        await plane.until(run_id, "run_blocked")
        broken = False
        await plane.command(run_id, cmd.Command(cancel=cmd.CancelCommand()))
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_CANCELLED


async def test_a_result_that_could_not_be_recorded_is_not_lost_with_its_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant, left = AgentFs.grant, [Exhausted("DISK_FULL", "no room")]

    async def breaking(self: AgentFs, tenant: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
        if left:
            raise left.pop()
        await grant(self, tenant, blobs)

    monkeypatch.setattr(AgentFs, "grant", breaking)
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        hand.result((await hand.assigned()).key)
        assert (await plane.until(run_id, "run_blocked")).body.run_blocked.reason == "INTERNAL_ERROR"
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_step_that_this_version_cannot_do_fails_and_does_not_spin(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    strange = plan.PlanNode(node_id=IDS.ulid(), title="Plan", step=plan.Step(control=plan.CONTROL_STEP_PLAN))
    async with control_plane(settings) as plane:
        state = await plane.until_ended(await plane.start([strange]))
    assert (state.phase, state.reason) == (ev.RUN_PHASE_FAILED, "UNKNOWN_STEP")


class Refusing:
    """A journal that refuses appends as it is told, before or after they are written."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.errors = journal, list[Exception]()

    def __getattr__(self, name: str) -> object:
        return getattr(self.journal, name)

    async def append(self, append: Append) -> Appended:
        if self.errors:
            raise self.errors.pop()
        return await self.journal.append(append)


async def _ledger(plane: ControlPlane, journal: Refusing) -> Ledger:
    run_id = await plane.start([noop("look")])
    ledger = Ledger(journal, CLOCK, IDS, await plane.journal.head(run_id))  # pyright: ignore[reportArgumentType] -- it is one, by delegation
    await ledger.load()
    return ledger


@pytest.mark.parametrize("error", [Exhausted("DISK_FULL", "no room"), StaleHead("R", 2, 3)])
async def test_a_refused_commit_leaves_the_state_as_the_journal_has_it(tmp_path: Path, error: Exception) -> None:
    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        plane = ControlPlane(None, journal)  # pyright: ignore[reportArgumentType] -- nothing is served
        refusing = Refusing(journal)
        ledger = await _ledger(plane, refusing)
        refusing.errors.append(error)
        blocked = ev.EventBody(run_blocked=ev.RunBlocked(reason="TRIED"))
        with pytest.raises(type(error)):
            await ledger.commit((blocked,))
        durable = (await folded_run(journal, ledger.head.run_id)).folded.state
        assert state_digest(ledger.state) == state_digest(durable)
        assert await ledger.commit((blocked,))
        assert ledger.state.blocked_reason == "TRIED"


async def test_a_journal_whose_tail_is_gone_is_said_to_be_damaged(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        ledger = await _ledger(ControlPlane(None, journal), Refusing(journal))  # pyright: ignore[reportArgumentType] -- nothing is served
        run_id = ledger.head.run_id
        await database.transact(
            lambda connection: connection.execute(
                delete(run_events).where(run_events.c.seq == ledger.state.seq)
            ).close()
        )
        async with asyncio.timeout(5):
            with pytest.raises(DataLoss, match="ends at event 1, its head says 2"):
                await folded_run(journal, run_id)
            with pytest.raises(DataLoss, match="ends at event 1, its head says 2"):
                await ledger.load()


async def test_what_is_decided_now_is_decided_again_when_the_head_moved(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        refusing = Refusing(journal)
        ledger = await _ledger(ControlPlane(None, journal), refusing)  # pyright: ignore[reportArgumentType] -- nothing is served
        refusing.errors.append(StaleHead("R", 2, 3))
        seen: list[int] = []

        def decide(folded: RunFold) -> tuple[ev.EventBody, ...]:
            seen.append(folded.state.seq)
            return (ev.EventBody(run_blocked=ev.RunBlocked(reason=str(uuid4()))),)

        assert await ledger.commit_now(decide)
        assert seen == [2, 2]
        assert ledger.state.seq == 3


async def test_nothing_is_written_on_a_basis_that_has_moved(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        ledger = await _ledger(ControlPlane(None, journal), Refusing(journal))  # pyright: ignore[reportArgumentType] -- nothing is served
        basis = ledger.state.seq
        await ledger.commit((ev.EventBody(run_blocked=ev.RunBlocked(reason="FIRST")),))
        assert not await ledger.commit((ev.EventBody(run_blocked=ev.RunBlocked(reason="SECOND")),), basis=basis)
        assert ledger.state.blocked_reason == "FIRST"


async def test_what_follows_at_once_is_in_the_same_commit(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        ledger = await _ledger(ControlPlane(None, journal), Refusing(journal))  # pyright: ignore[reportArgumentType] -- nothing is served
        blocked = ev.EventBody(run_blocked=ev.RunBlocked(reason="TRIED"))
        unblocked = ev.EventBody(run_unblocked=ev.RunUnblocked(reason="TRIED"))
        before = ledger.state.seq
        await ledger.commit_now(lambda _: (blocked,), follow=lambda folded: (unblocked,) if _tried(folded) else ())
        first, second = await journal.read(ledger.head.run_id, after_seq=before)
        assert ledger.state.blocked_reason == ""
    assert first.append_id == second.append_id


async def test_the_time_of_a_run_leaves_out_its_pauses_and_what_it_waited_for_a_person(tmp_path: Path) -> None:
    clock = ManualClock()
    told = [cmd.Command(pause=cmd.PauseCommand()), cmd.Command(resume=cmd.ResumeCommand())]
    paused, resumed = [ev.EventBody(command_applied=ev.CommandApplied(command=command)) for command in told]
    waits = ev.EventBody(run_blocked=ev.RunBlocked(reason=WAITING_FOR_PERSON))
    goes_on = ev.EventBody(run_unblocked=ev.RunUnblocked(reason=WAITING_FOR_PERSON))
    path = settings_in(tmp_path).journal_path
    async with open_database(path) as database, open_journal(database, clock=clock) as journal:
        plane = ControlPlane(None, journal)  # pyright: ignore[reportArgumentType] -- nothing is served
        run_id = await plane.start([noop("look")], max_wall_seconds=60)
        ledger = Ledger(journal, clock, IDS, await journal.head(run_id))
        await ledger.load()
        for body in (paused, resumed, waits, goes_on, paused):
            await clock.advance(10)
            await ledger.commit((body,))
        await clock.advance(10)
        assert ledger.folded.active_ms(clock.now_ms()) == 30_000
        kept = ledger.state.SerializeToString()
        await journal.save_snapshot(Snapshot(run_id, ledger.state.seq, ledger.head.fold_version, kept))
        taken_over = Ledger(journal, clock, IDS, await journal.head(run_id))
        await taken_over.load()
        assert taken_over.folded.active_ms(clock.now_ms()) == 30_000


@pytest.mark.parametrize("fails", ["deciding", "folding"])
async def test_what_cannot_follow_does_not_keep_out_what_it_follows(tmp_path: Path, fails: str) -> None:
    def follow(_folded: RunFold) -> tuple[ev.EventBody, ...]:
        if fails == "deciding":
            raise ValueError("a bug")
        return (
            ev.EventBody(run_blocked=ev.RunBlocked(reason="SECOND")),
            ev.EventBody(node_settled=ev.NodeSettled(node_id="of no plan")),
        )

    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        ledger = await _ledger(ControlPlane(None, journal), Refusing(journal))  # pyright: ignore[reportArgumentType] -- nothing is served
        blocked, before = ev.EventBody(run_blocked=ev.RunBlocked(reason="TRIED")), ledger.state.seq
        assert await ledger.commit_now(lambda _: (blocked,), follow=follow)
        durable = (await folded_run(journal, ledger.head.run_id)).folded.state
    assert state_digest(ledger.state) == state_digest(durable)
    assert (durable.seq, durable.blocked_reason) == (before + 1, "TRIED")


def _tried(folded: RunFold) -> bool:
    return folded.state.blocked_reason == "TRIED"


async def test_outcomes_that_nobody_needs_any_more_are_forgotten_and_those_in_question_are_kept(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        ledger = await _ledger(ControlPlane(None, journal), Refusing(journal))  # pyright: ignore[reportArgumentType] -- nothing is served
        nodes = [noop(f"step {number}") for number in range(300)]
        await ledger.commit((ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes)),))
        for node in nodes:
            step = ev.StepIntended(step_id=node.node_id, attempt=1)
            ended = ev.StepFinished(step_id=node.node_id, attempt=1)
            proven = ev.StepValidated(step_id=node.node_id, attempt=1, holds=plan.HOLDS_YES)
            events = [ev.EventBody(step_intended=step), ev.EventBody(step_finished=ended)]
            if node is not nodes[-1]:
                events.append(ev.EventBody(step_validated=proven))
            await ledger.commit(events)
        last = ledger.folded.node(nodes[-1].node_id).attempts[0].finished_seq
        assert len(ledger.outcomes) < 300
        assert last in ledger.outcomes
        await ledger.load()
        assert list(ledger.outcomes) == [last]
