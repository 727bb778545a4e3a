"""How what a worker holds is ended, and what is said of its effect."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from infra.clock import ManualClock
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from tests.execution.actors import Actor, Immediate, settings, working
from tests.execution.control_plane import ControlPlane, assign, noop, step_key, ulid

CANCELLED = action_pb2.OUTCOME_STATUS_CANCELLED
OK = action_pb2.OUTCOME_STATUS_OK
NONE, UNKNOWN = effect_pb2.EFFECT_NONE, effect_pb2.EFFECT_UNKNOWN
READ = effect_pb2.EFFECT_CLASS_READ


async def test_a_cancel_that_overtakes_its_assign_forbids_it(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.cancel(step_key())
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect) == (CANCELLED, NONE)
        link.assign(assign())
        assert (await link.result()).outcome == outcome
        link.recorded(step_key())
        link.assign(assign())
        assert (await link.state()).state == pb.HELD_STATE_RELEASED
        assert not actor.executed


@pytest.mark.parametrize(("effect_class", "effect"), [(READ, NONE), (effect_pb2.EFFECT_CLASS_ONCE, UNKNOWN)])
async def test_cancelling_what_runs_says_what_is_known_of_its_effect(
    plane: ControlPlane,
    tmp_path: Path,
    actor: Actor,
    effect_class: effect_pb2.EffectClass.ValueType,
    effect: effect_pb2.Effect.ValueType,
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign(step_key(), noop(effect_class=effect_class)))
        await actor.next()
        link.cancel(key, reason="the person changed their mind")
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect) == (CANCELLED, effect)
        assert "the person changed their mind" in outcome.message


async def test_an_executor_may_know_better_than_unknown(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    actor.catches_cancel = action_pb2.Outcome(status=CANCELLED, effect=NONE, message="had not clicked yet")
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        await actor.next()
        link.cancel(key)
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect, outcome.message) == (CANCELLED, NONE, "had not clicked yet")


async def test_a_result_that_wins_against_its_cancel_is_reported_as_it_is(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        running = await actor.next()
        link.cancel(key, grace=60)
        link.inspect(key)
        await link.state()
        actor.let(running)
        assert (await link.result()).outcome.status == OK
        link.cancel(key)
        assert (await link.result()).outcome.status == OK


async def test_what_does_not_end_within_the_grace_of_its_cancel_is_ended(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    clock = ManualClock()
    async with working(actor, settings(plane.address, tmp_path), clock):
        link = await plane.meet(lease_ttl=600, heartbeat=300)
        key = link.assign(assign())
        await actor.next()
        link.cancel(key, reason="enough", grace=60)
        for elapsed in (0, 59.9):
            await clock.advance(elapsed)
            link.inspect(key)
            assert (await link.state()).state == pb.HELD_STATE_RUNNING
        await clock.advance(0.1)
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect) == (CANCELLED, UNKNOWN)


async def test_cancelling_what_waits_its_turn_settles_it_at_once(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)):
        link = await plane.meet()
        link.assign(assign(step_key(1)))
        await actor.next()
        waiting = link.assign(assign(step_key(2)))
        link.cancel(waiting)
        result = await link.result()
        assert (result.key, result.outcome.status, result.outcome.effect) == (waiting, CANCELLED, NONE)


async def test_a_cancel_that_comes_while_the_attempt_is_journalled_forbids_the_effect(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Immediate()
    chosen = settings(plane.address, tmp_path)
    async with working(actor, chosen):
        link = await plane.meet(heartbeat=0.02)
        with closing(sqlite3.connect(chosen.folder / "journal.db", isolation_level=None)) as intruder:
            intruder.execute("BEGIN IMMEDIATE")
            key = link.assign(assign())
            link.cancel(key)
            await link.applied()
            intruder.execute("ROLLBACK")
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect) == (CANCELLED, NONE)
        assert not actor.executed


async def test_an_overtaken_owner_cannot_cancel(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(1, epoch=2)))
        running = await actor.next()
        link.cancel(step_key(1, epoch=1))
        assert (await link.state()).state == pb.HELD_STATE_RUNNING
        link.cancel(step_key(2, epoch=1))
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        link.assign(assign(step_key(2, epoch=2)))
        await actor.next()
        actor.let(running)
        assert (await link.result()).outcome.status == OK


async def test_the_end_of_a_run_stops_what_runs_and_forgets_its_keys(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(1)))
        actor.let(await actor.next())
        await link.result()
        link.assign(assign(step_key(2)))
        await actor.next()
        link.send(pb.ControlResponse(run_ended=pb.RunEnded(run_id=ulid(1))))
        assert (await link.result()).outcome.status == CANCELLED
        link.assign(assign(step_key(1)))
        assert (await link.result()).outcome.reason == "RUN_ENDED"
        assert await actor.ended_runs.get() == ulid(1)
        link.close()
        assert not (await (await plane.accept()).hello()).held
