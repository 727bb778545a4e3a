"""kill -9 at every joint of a step's life: its effect happens at most once, and what is said of it is true."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from execution.joints import Joint, joints_at
from infra.errors import InvalidArgument
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from tests.execution.control_plane import ControlPlane, Link, assign, control_plane, noop, step_key
from tests.execution.processes import Site

OK = (action_pb2.OUTCOME_STATUS_OK, effect_pb2.EFFECT_DONE)
LOST = (action_pb2.OUTCOME_STATUS_LOST, effect_pb2.EFFECT_UNKNOWN)


@dataclass(frozen=True)
class After:
    """What a crash at a joint leaves behind."""

    effects: int
    held: pb.HeldState.ValueType | None
    outcome: tuple[int, int] | None


AFTER = {
    Joint.ASSIGNED: After(0, None, None),
    Joint.BEGUN: After(0, pb.HELD_STATE_LOST, LOST),
    Joint.EFFECT: After(1, pb.HELD_STATE_LOST, LOST),
    Joint.JOURNALLED: After(1, pb.HELD_STATE_DONE, OK),
    Joint.SENT: After(1, pb.HELD_STATE_DONE, OK),
    Joint.RECORDED: After(1, pb.HELD_STATE_DONE, OK),
}


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def crashed(plane: ControlPlane, site: Site, joint: Joint) -> pb.StepKey:
    """A worker that was assigned one step and died at that joint."""
    async with site.worker(plane.address, crash_at=joint) as worker:
        link = await plane.meet()
        key = link.assign(assign(step_key(), noop()))
        if joint is Joint.RECORDED:
            await link.result()
            link.recorded(key)
        assert await worker.exit_code() == -signal.SIGKILL
    return key


@pytest.mark.parametrize("joint", Joint)
async def test_after_a_crash_the_truth_is_told_and_the_attempt_never_executes_again(
    plane: ControlPlane, site: Site, joint: Joint
) -> None:
    key, after = await crashed(plane, site, joint), AFTER[joint]
    assert sum(site.executions().values()) == after.effects
    async with site.worker(plane.address):
        link = await plane.accept()
        hello = await link.hello()
        assert [(held.key, held.state) for held in hello.held] == ([(key, after.held)] if after.held else [])
        link.welcome()
        if after.outcome is not None:
            await told(plane, link, after.outcome)
        link.assign(assign(step_key(), noop()))
        await told(plane, link, after.outcome or OK)
        assert sum(site.executions().values()) == (1 if joint is Joint.ASSIGNED else after.effects)
        link.recorded(key)
        link.inspect(key)
        assert (await link.state()).state == pb.HELD_STATE_RELEASED


async def told(plane: ControlPlane, link: Link, expected: tuple[int, int]) -> None:
    outcome = (await link.result()).outcome
    assert (outcome.status, outcome.effect) == expected
    for evidence in outcome.blobs:
        assert evidence.digest in plane.blobs


async def test_what_was_lost_can_be_tried_again_by_a_new_attempt(plane: ControlPlane, site: Site) -> None:
    await crashed(plane, site, Joint.BEGUN)
    async with site.worker(plane.address):
        link = await plane.meet()
        await told(plane, link, LOST)
        link.assign(assign(step_key(attempt=2)))
        await told(plane, link, OK)
    assert list(site.executions().values()) == [1]


async def test_reading_that_was_lost_had_no_effect(plane: ControlPlane, site: Site) -> None:
    async with site.worker(plane.address, crash_at=Joint.EFFECT) as worker:
        link = await plane.meet()
        link.assign(assign(step_key(), noop(effect_class=effect_pb2.EFFECT_CLASS_READ)))
        await worker.exit_code()
    async with site.worker(plane.address):
        link = await plane.meet()
        await told(plane, link, (action_pb2.OUTCOME_STATUS_LOST, effect_pb2.EFFECT_NONE))


async def test_without_its_journal_the_same_attempt_executes_twice_and_the_journal_id_tells(
    plane: ControlPlane, site: Site
) -> None:
    """The positive control: the counter can count to two, and an owner can see why it must not assign again."""
    async with site.worker(plane.address, crash_at=Joint.SENT) as worker:
        link = await plane.accept()
        first = await link.hello()
        link.welcome()
        link.assign(assign())
        await worker.exit_code()
    for file in (site.data_dir / "workers" / "noop-1").glob("journal.db*"):
        file.unlink()
    async with site.worker(plane.address):
        link = await plane.accept()
        second = await link.hello()
        link.welcome()
        link.assign(assign())
        await link.result()
    assert list(site.executions().values()) == [2]
    assert first.journal_id != second.journal_id


async def test_a_second_worker_on_the_same_journal_is_refused(plane: ControlPlane, site: Site) -> None:
    async with site.worker(plane.address):
        await plane.meet()
        async with site.worker(plane.address) as second:
            assert await second.exit_code() == 1
            assert "in use by process" in await second.stderr()


async def test_a_restart_is_told_from_a_reconnect(plane: ControlPlane, site: Site) -> None:
    hellos: list[pb.Hello] = []
    async with site.worker(plane.address):
        for _ in range(2):
            link = await plane.accept()
            hellos.append(await link.hello())
            link.welcome()
            link.close()
    async with site.worker(plane.address):
        link = await plane.accept()
        while (hello := await link.hello()).incarnation_id == hellos[0].incarnation_id:
            link = await plane.accept()
        hellos.append(hello)
    assert hellos[0].incarnation_id == hellos[1].incarnation_id
    assert len({hello.journal_id for hello in hellos}) == 1


@pytest.mark.parametrize("seed", range(3))
async def test_a_campaign_of_kills_loses_nothing_and_does_nothing_twice(
    plane: ControlPlane, site: Site, seed: int
) -> None:
    """An owner with twelve steps, assigned again until each is recorded, and a worker that dies at random joints."""
    chance = random.Random(seed)
    joints = [joint for joint in Joint for _ in range(2)]
    recorded: dict[str, pb.StepResult] = {}
    keys = [step_key(step) for step in range(1, 13)]
    while len(recorded) < len(keys):
        crash_at = f"{joints.pop(chance.randrange(len(joints)))}:{chance.randint(1, 3)}" if joints else ""
        async with site.worker(plane.address, crash_at=crash_at) as worker:
            link = await plane.accept()
            await link.hello()
            link.welcome()
            for key in keys:
                if key.step_id not in recorded:
                    link.assign(assign(key))
            while len(recorded) < len(keys):
                result = await link.result_unless_gone()
                if result is None:
                    break
                recorded.setdefault(result.key.step_id, result)
                link.recorded(result.key)
            if len(recorded) == len(keys):
                break
            assert await worker.exit_code() == -signal.SIGKILL
    executions = site.executions()
    for key in keys:
        result, times = recorded[key.step_id], executions[f"{key.step_id}.1"]
        status = (result.outcome.status, result.outcome.effect)
        assert status in (OK, LOST)
        assert times == 1 if status == OK else times <= 1
    assert all(times == 1 for times in executions.values())


@pytest.mark.parametrize("text", ["nowhere", "begun:x", "begun:1:2", "begun@twice", "begun@once:x"])
def test_an_unknown_joint_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a joint"):
        joints_at(text)
