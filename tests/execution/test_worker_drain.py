"""How a worker leaves: on a signal, or because the control plane asks."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from infra.errors import Unavailable
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from tests.execution.actors import Actor, Immediate, settings, working
from tests.execution.control_plane import ControlPlane, Link, assign, control_plane, noop, step_key
from tests.execution.processes import Site

OK = action_pb2.OUTCOME_STATUS_OK
CANCELLED = action_pb2.OUTCOME_STATUS_CANCELLED


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
async def stack() -> AsyncGenerator[AsyncExitStack]:
    async with AsyncExitStack() as opened:
        yield opened


def fifo(folder: Path) -> Path:
    path = folder / "gate"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_idle_worker_says_goodbye_and_exits_in_order(
    plane: ControlPlane, site: Site, number: signal.Signals
) -> None:
    async with site.worker(plane.address) as worker:
        link = await plane.meet()
        await link.next("credit")
        worker.signal(number)
        await link.next("goodbye")
        link.close()
        assert await worker.exit_code() == 0


async def test_a_worker_that_has_no_control_plane_exits_in_order(site: Site, stack: AsyncExitStack) -> None:
    async with control_plane() as plane:
        address = plane.address
        worker = await stack.enter_async_context(site.worker(address))
        await (await plane.meet()).next("credit")
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0


async def test_what_runs_is_finished_reported_and_recorded_before_goodbye(
    plane: ControlPlane, site: Site, tmp_path: Path
) -> None:
    gate = fifo(tmp_path)
    async with site.worker(plane.address) as worker:
        link = await plane.meet()
        running = link.assign(assign(step_key(1), noop(str(gate).encode())))
        await link.next("step_accepted")
        worker.signal(signal.SIGTERM)
        refused = await refused_draining(link)
        assert refused.outcome.effect == effect_pb2.EFFECT_NONE
        await asyncio.to_thread(gate.write_bytes, b"go")
        result = await link.result()
        assert (result.key, result.outcome.status) == (running, OK)
        assert link.waiting("goodbye") == 0
        link.recorded(running)
        link.recorded(refused.key)
        await link.next("goodbye")
        link.close()
        assert await worker.exit_code() == 0
    assert set(site.executions()) == {f"{running.step_id}.1"}


async def refused_draining(link: Link) -> pb.StepResult:
    """The first step that is refused because the worker has noticed the signal."""
    for step in range(2, 1000):
        key = link.assign(assign(step_key(step), noop(b"wait")))
        link.cancel(key)
        result = await link.result()
        if result.outcome.reason == "DRAINING":
            return result
        link.recorded(key)
    raise AssertionError("the worker never noticed the signal")


async def test_what_does_not_end_in_time_is_cancelled_and_told(plane: ControlPlane, site: Site) -> None:
    async with site.worker(plane.address, drain_grace=0.1) as worker:
        link = await plane.meet()
        key = link.assign(assign(step_key(), noop(b"wait")))
        await link.next("step_accepted")
        worker.signal(signal.SIGTERM)
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect) == (CANCELLED, effect_pb2.EFFECT_UNKNOWN)
        link.recorded(key)
        await link.next("goodbye")
        link.close()
        assert await worker.exit_code() == 0
    async with site.worker(plane.address):
        assert not (await (await plane.accept()).hello()).held


async def test_what_nobody_records_in_time_is_held_for_the_next_start(plane: ControlPlane, site: Site) -> None:
    async with site.worker(plane.address, drain_grace=0.1) as worker:
        link = await plane.meet()
        key = link.assign(assign())
        await link.result()
        worker.signal(signal.SIGTERM)
        await link.next("goodbye")
        link.close()
        assert await worker.exit_code() == 0
    async with site.worker(plane.address):
        link = await plane.accept()
        assert [(held.key, held.state) for held in (await link.hello()).held] == [(key, pb.HELD_STATE_DONE)]
        link.welcome()
        assert (await link.result()).outcome.status == OK


async def test_a_drain_that_names_nobody_else_ends_the_worker(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Actor()
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)) as worker:
        link = await plane.meet()
        running_key, waiting_key = link.assign(assign(step_key(1))), link.assign(assign(step_key(2)))
        running = await actor.next()
        link.send(pb.ControlResponse(drain=pb.Drain(reason="maintenance")))
        refused = await link.result()
        assert (refused.key, refused.outcome.reason) == (waiting_key, "DRAINING")
        actor.let(running)
        assert (await link.result()).key == running_key
        link.recorded(running_key)
        link.recorded(waiting_key)
        await link.next("goodbye")
        link.close()
        await worker


async def test_a_worker_that_leaves_begins_nothing_and_waits_until_its_results_are_recorded(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Actor()
    async with working(actor, settings(plane.address, tmp_path)) as worker:
        link = await plane.meet()
        running_key = link.assign(assign(step_key(1)))
        running = await actor.next()
        link.send(pb.ControlResponse(drain=pb.Drain(reason="maintenance")))
        link.inspect(running_key)
        await link.state()
        late_key = link.assign(assign(step_key(2)))
        refused = await link.result()
        assert (refused.key, refused.outcome.reason, refused.outcome.effect) == (
            late_key,
            "DRAINING",
            effect_pb2.EFFECT_NONE,
        )
        link.recorded(late_key)
        actor.let(running)
        assert (await link.result()).key == running_key
        link.inspect(running_key)
        assert (await link.state()).state == pb.HELD_STATE_DONE
        assert link.waiting("goodbye") == 0
        link.recorded(running_key)
        await link.next("goodbye")
        link.close()
        await worker


async def test_a_drain_with_an_alternate_moves_the_worker_with_what_runs(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Actor()
    async with control_plane() as other, working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        running = await actor.next()
        link.send(pb.ControlResponse(drain=pb.Drain(alternates=[other.address], reason="handing over")))
        await link.next("goodbye")
        link.close()
        link = await other.accept()
        assert [(held.key, held.state) for held in (await link.hello()).held] == [(key, pb.HELD_STATE_RUNNING)]
        link.welcome()
        actor.let(running)
        assert (await link.result()).outcome.status == OK
        link.assign(assign(step_key(2)))
        actor.let(await actor.next())
        assert (await link.result()).outcome.status == OK


async def test_an_alternate_that_is_away_sends_the_worker_back(plane: ControlPlane, tmp_path: Path) -> None:
    async with control_plane() as gone:
        away = gone.address
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.send(pb.ControlResponse(drain=pb.Drain(alternates=[away])))
        await link.next("goodbye")
        link.close()
        link = await plane.meet()
        link.assign(assign())
        assert (await link.result()).outcome.status == OK


async def test_a_worker_that_was_told_of_other_nodes_dials_them_when_its_own_is_lost(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Actor()
    async with control_plane() as other, working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet(heartbeat=0.2)
        key = link.assign(assign())
        running = await actor.next()
        link.send(pb.ControlResponse(alternates=pb.Alternates(addresses=[other.address])))
        await link.applied()
        link.close(Unavailable("GONE", "this node is lost"))
        link = await other.accept()
        assert [held.key for held in (await link.hello()).held] == [key]
        link.welcome()
        actor.let(running)
        assert (await link.result()).key == key


async def test_a_result_that_its_owner_did_not_get_is_reported_again_on_the_same_stream(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        first = await link.result()
        link.send(pb.ControlResponse(result_refused=pb.ResultRefused(key=key)))
        assert await link.result() == first
