"""Leases: what may still begin, on a clock that the test turns by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from execution import worker as worker_module
from execution.attempts import AttemptKey
from execution.joints import Joint
from execution.lease import Lease
from infra.clock import ManualClock
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from tests.execution.actors import Actor, Immediate, settings, working
from tests.execution.control_plane import ControlPlane, assign, control_plane, seconds, step_key, ulid

REFUSED = (action_pb2.OUTCOME_STATUS_REFUSED, effect_pb2.EFFECT_NONE, "LEASE_ENDED")
A, B = AttemptKey("r", "a", 1), AttemptKey("r", "b", 1)


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def refused(result: pb.StepResult) -> bool:
    return (result.outcome.status, result.outcome.effect, result.outcome.reason) == REFUSED


async def test_nothing_begins_before_a_lease_is_granted(clock: ManualClock) -> None:
    assert not Lease(clock).alive


async def test_a_lease_counts_from_when_it_was_asked_for(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.grant(clock.monotonic(), 10)
    await clock.advance(4)
    lease.claim([])
    await clock.advance(5)
    lease.renew([], 10)
    await clock.advance(4.9)
    assert lease.alive
    await clock.advance(0.1)
    assert not lease.alive


async def test_a_shorter_renewal_takes_nothing_away(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.grant(clock.monotonic(), 10)
    lease.claim([])
    lease.renew([], 1)
    await clock.advance(5)
    assert lease.alive


async def test_only_what_was_claimed_can_be_missing_from_its_renewal(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.grant(clock.monotonic(), 10)
    lease.claim([A])
    lease.claim([A, B])
    assert lease.renew([A], 10) == frozenset()
    assert lease.renew([A], 10) == frozenset({B})


async def test_a_renewal_that_nobody_asked_for_extends_nothing(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.renew([A], 10)
    assert not lease.alive


async def test_a_new_stream_forgets_the_claims_of_the_old_one(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.claim([A])
    lease.grant(clock.monotonic(), 10)
    assert lease.renew([], 10) == frozenset()


async def test_what_nobody_could_be_asked_about_keeps_the_lease_that_it_had(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.grant(clock.monotonic(), 10)
    for _ in range(2):  # the second time it keeps the first end, not the one that the others were given
        await clock.advance(4)
        lease.claim([A, B])
        assert lease.renew([A], 10, unanswered=[B]) == frozenset()
    assert (lease.covers(A), lease.covers(B)) == (True, True)
    await clock.advance(2)
    assert (lease.covers(A), lease.covers(B)) == (True, False)
    lease.claim([A, B])
    lease.renew([A, B], 10)
    assert lease.covers(B)


async def test_a_clock_that_jumps_harms_no_lease(clock: ManualClock) -> None:
    lease = Lease(clock)
    lease.grant(clock.monotonic(), 10)
    clock.jump(3600)
    assert lease.alive


async def test_a_step_that_comes_after_the_lease_is_refused(
    plane: ControlPlane, tmp_path: Path, clock: ManualClock
) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=20)
        link.assign(assign(step_key(1)))
        assert (await link.result()).outcome.status == action_pb2.OUTCOME_STATUS_OK
        await clock.advance(10)
        link.assign(assign(step_key(2)))
        assert refused(await link.result())
        link.inspect(step_key(2))
        assert (await link.state()).state == pb.HELD_STATE_TOMBSTONE
        assert [execution.step_id for execution in actor.executed] == [ulid(1)]


async def test_heartbeats_that_are_answered_keep_the_lease(
    plane: ControlPlane, tmp_path: Path, clock: ManualClock
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=4)
        await link.next("credit")
        for step in range(1, 6):
            await clock.until_sleeping()
            await clock.advance(4)
            await link.next("heartbeat")
            link.assign(assign(step_key(step)))
            assert (await link.result()).outcome.status == action_pb2.OUTCOME_STATUS_OK


async def test_what_runs_when_the_lease_ends_finishes_and_is_reported(
    plane: ControlPlane, tmp_path: Path, clock: ManualClock
) -> None:
    actor = Actor()
    async with working(actor, settings(plane.address, tmp_path), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=20)
        link.assign(assign())
        running = await actor.next()
        await clock.advance(15)
        actor.let(running)
        assert (await link.result()).outcome.status == action_pb2.OUTCOME_STATUS_OK


async def test_what_waited_until_the_lease_ended_is_refused(
    plane: ControlPlane, tmp_path: Path, clock: ManualClock
) -> None:
    actor = Actor()
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=20)
        link.assign(assign(step_key(1)))
        link.assign(assign(step_key(2)))
        running = await actor.next()
        await clock.advance(15)
        actor.let(running)
        results = {result.key.step_id: result for result in (await link.result(), await link.result())}
        assert refused(results[ulid(2)])
        assert len(actor.executed) == 1


async def test_a_waiting_step_that_is_not_renewed_is_refused_and_a_running_one_goes_on(
    plane: ControlPlane, tmp_path: Path, clock: ManualClock
) -> None:
    actor = Actor()
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=4)
        link.renewing = False
        keys = [link.assign(assign(step_key(step))) for step in (1, 2, 3)]
        running = await actor.next()
        await clock.until_sleeping()
        await clock.advance(4)
        assert list((await link.next("heartbeat")).heartbeat.running) == keys
        link.send(pb.ControlResponse(renewed=pb.Renewed(leases=keys[2:], lease_ttl=seconds(10))))
        result = await link.result()
        assert result.key == keys[1]
        assert refused(result)
        actor.let(running)
        assert (await link.result()).key == keys[0]
        assert (await actor.next()).step_id == ulid(3)


async def test_a_process_that_was_frozen_after_journalling_does_not_act_any_more(
    plane: ControlPlane, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Freeze:
        def reach(self, joint: Joint, key: AttemptKey, effect_class: int = 0) -> None:
            if joint is Joint.BEGUN:
                clock._elapsed += 60  # pyright: ignore[reportPrivateUsage]

    def freezing(_: str) -> Freeze:
        return Freeze()

    monkeypatch.setattr(worker_module, "joints_at", freezing)
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=20)
        link.assign(assign())
        assert refused(await link.result())
        assert not actor.executed


async def test_a_silent_control_plane_is_dialled_again(plane: ControlPlane, tmp_path: Path, clock: ManualClock) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path), clock):
        link = await plane.meet(lease_ttl=10, heartbeat=5)
        link.renewing = False
        await link.next("credit")
        for _ in range(2):
            await clock.until_sleeping()
            await clock.advance(5)
        await link.gone()
        await clock.until_sleeping()
        await clock.advance(2)
        await (await plane.accept()).hello()
