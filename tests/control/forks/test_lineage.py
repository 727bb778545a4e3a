"""What must not happen twice is begun by one run of a lineage at a time, whoever goes on, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection

from control.core.lineage import Begun
from control.core.run import RunFold
from control.journal import Append, Claim, Release, lineage
from control.orchestrator.relatives import releases_of
from infra.db import shared_database
from infra.db.driver import driver_of
from infra.settings import OwnershipSettings, Settings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.control.forks.world import Mesh, mesh
from tests.control.orchestrator.harness import noop, settings_in
from tests.control.orchestrator.scripted import ended, scripted_worker

ONCE, READ = eff.EFFECT_CLASS_ONCE, eff.EFFECT_CLASS_READ


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        return settings_in(tmp_path)
    new_database: Callable[[], str] = request.getfixturevalue("new_database")
    return settings_in(tmp_path, database_url=SecretStr(new_database()), ownership=OwnershipSettings())


@pytest.fixture
async def world(settings: Settings) -> AsyncGenerator[Mesh]:
    async with mesh(settings) as opened:
        yield opened


def step_of(state: st.RunState, title: str) -> st.NodeRecord:
    return next(record for record in state.nodes if record.node.title == title)


def resolve(step_id: str, effect: eff.Effect.ValueType) -> cmd.Command:
    return cmd.Command(resolve=cmd.ResolveCommand(step_id=step_id, effect=effect, note="looked"))


async def test_parent_and_fork_race_for_a_step_and_one_of_them_does_it(world: Mesh, settings: Settings) -> None:
    """The fork wins; the parent, which goes on, must not do it again."""
    run_id = await world.start([noop("look", READ), noop("post", ONCE)])
    async with scripted_worker(settings, world.plane.runtime.address, credit=16) as worker:
        look = await worker.assigned()
        child = (await world.fork(run_id, await world.seq_of(run_id, "step_intended"))).run.run_id
        again = await worker.assigned()
        assert (look.key.run_id, again.key.run_id) == (run_id, child)
        worker.result(again.key)
        post = await worker.assigned()
        assert post.key.run_id == child
        worker.result(look.key)
        waits = await world.plane.until_state(run_id, lambda state: state.blocked_reason == "BUSY_ELSEWHERE")
        assert child in waits.blocked_detail
        worker.result(post.key)
        assert (await world.plane.until_ended(child)).phase == ev.RUN_PHASE_SUCCEEDED
        asked = await world.plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_WAITING)
        assert step_of(asked, "post").state == ev.NODE_STATE_UNCERTAIN
        assert child in step_of(asked, "post").reason
        await worker.nothing_but("result_recorded", "run_ended")
        await world.plane.command(run_id, resolve(post.key.step_id, eff.EFFECT_DONE))
        assert (await world.plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_step_that_is_open_in_the_parent_is_not_sent_for_the_fork_until_a_person_says_so(
    world: Mesh, settings: Settings
) -> None:
    run_id = await world.start([noop("post", ONCE)])
    async with scripted_worker(settings, world.plane.runtime.address, credit=16) as worker:
        post = await worker.assigned()
        child = (await world.fork(run_id, await world.seq_of(run_id, "step_intended"))).run.run_id
        await world.plane.until_state(child, lambda state: state.phase == ev.RUN_PHASE_WAITING)
        await world.plane.command(child, resolve(post.key.step_id, eff.EFFECT_NONE))
        # Even then not while the parent's own attempt is open: a person may not know of it.
        await world.plane.until_state(child, lambda state: state.blocked_reason == "BUSY_ELSEWHERE")
        worker.result(post.key, ended(act.OUTCOME_STATUS_FAILED, eff.EFFECT_UNKNOWN))
        again = await worker.assigned()
        assert (again.key.run_id, again.key.attempt) == (child, 2)
        worker.result(again.key)
        assert (await world.plane.until_ended(child)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_what_refused_and_did_nothing_may_be_begun_by_a_relative(world: Mesh, settings: Settings) -> None:
    run_id = await world.start([noop("post", ONCE)])
    async with scripted_worker(settings, world.plane.runtime.address, credit=16) as worker:
        post = await worker.assigned()
        await world.plane.command(run_id, cmd.Command(pause=cmd.PauseCommand()))
        worker.result(post.key, ended(act.OUTCOME_STATUS_REFUSED, eff.EFFECT_NONE))
        await world.plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSED)
        head = await world.plane.journal.head(run_id)
        child = (await world.fork(run_id, head.head_seq)).run.run_id
        again = await worker.assigned()
        assert (again.key.run_id, again.key.step_id) == (child, post.key.step_id)


async def test_of_two_forks_of_a_finished_run_one_does_what_was_never_begun(world: Mesh, settings: Settings) -> None:
    run_id = await world.start([noop("look", READ), noop("post", ONCE)])
    async with scripted_worker(settings, world.plane.runtime.address, credit=16) as worker:
        look = await worker.assigned()
        await world.plane.command(run_id, cmd.Command(cancel=cmd.CancelCommand()))
        worker.result(look.key, ended(act.OUTCOME_STATUS_CANCELLED, eff.EFFECT_NONE))
        await world.plane.until_ended(run_id)
        first, second = [(await world.fork(run_id, 2)).run.run_id for _ in range(2)]
        posts = list[str]()
        for _ in range(3):
            assigned = await worker.assigned()
            worker.result(assigned.key)
            posts += [assigned.key.run_id] if assigned.action.effect_class == ONCE else []
        (winner,) = posts
        loser = second if winner == first else first
        waits = await world.plane.until_state(loser, lambda state: state.phase == ev.RUN_PHASE_WAITING)
        assert winner in step_of(waits, "post").reason
        grandchild = (await world.fork(loser, (await world.plane.journal.head(loser)).head_seq)).run.run_id
        waits = await world.plane.until_state(grandchild, lambda state: state.phase == ev.RUN_PHASE_WAITING)
        assert waits.lineage == run_id
        assert winner in step_of(waits, "post").reason
        await worker.nothing_but("result_recorded", "run_ended")


async def test_a_fork_hears_what_it_is_and_its_parent_too(world: Mesh, settings: Settings) -> None:
    run_id = await world.start([noop("look", READ)])
    child = (await world.fork(run_id, 2)).run.run_id
    told = await world.plane.until_state(run_id, lambda state: bool(state.forks))
    assert (list(told.forks), told.lineage) == ([child], run_id)
    state = await world.plane.state(child)
    assert (state.parent.run_id, state.parent.seq, state.lineage) == (run_id, 2, run_id)
    for run in (run_id, child):
        assert (await world.plane.journal.verify(run)).bad_seq is None


async def test_forks_that_are_asked_for_at_once_under_one_request_are_one(world: Mesh, settings: Settings) -> None:
    run_id = await world.start([noop("look", READ)])
    request_id = "6f9619ff-8b86-4011-b42d-00c04fc964ff"
    made = await asyncio.gather(*(world.fork(run_id, 2, request_id=request_id) for _ in range(4)))
    assert len({answer.run.run_id for answer in made}) == 1
    assert {answer.parent.seq for answer in made} == {2}


async def test_what_a_run_ends_before_it_hears_of_its_fork_keeps_that_waiting_for_nothing(world: Mesh) -> None:
    run_id = await world.start([noop("post", ONCE)])
    post = (await world.plane.state(run_id)).nodes[0].node.node_id
    unheard = RunFold(await world.plane.state(run_id))
    assert not unheard.state.lineage
    done = ev.EventBody(step_finished=ev.StepFinished(step_id=post, attempt=1))
    assert releases_of(unheard, [done]) == (Release(run_id, post, nothing=False),)


async def test_a_beginning_that_came_to_nothing_is_not_taken_for_a_later_one(world: Mesh) -> None:
    database = await world.plane.runtime.shared(shared_database)
    claim, release = Append("A", 1, 1, (), "1", claims=(Claim("L", "s"),)), Release("L", "s", nothing=True)
    late = Append("B", 1, 1, (), "2", claims=(Claim("L", "s", Begun("A", 1)),))

    def in_turn(connection: Connection) -> list[bool]:
        driver = driver_of(connection)
        first = lineage.claimed(driver, claim) is None
        lineage.release(driver, replace(claim, releases=(release,)))
        again = lineage.claimed(driver, claim) is None
        lineage.release(driver, replace(claim, releases=(replace(release, nothing=False),)))
        return [first, again, lineage.claimed(driver, late) is None]

    assert await database.transact(in_turn) == [True, True, False]
