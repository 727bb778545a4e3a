"""The workers' streams on the control plane's side: greeting, credits, leases, and their ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from control.journal import Node, RunHead
from control.journal.sql import SqlJournal
from control.orchestrator.links import LocalLink, Wanted, WorkerLinks
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import control_plane, noop, settings_in
from tests.control.orchestrator.scripted import PATIENCE, ended, held, scripted_worker

Claimed = tuple[RunHead, ...]


async def test_a_stream_that_does_not_begin_with_hello_is_ended(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, greet=False) as hand,
    ):
        hand.credit()
        assert await hand.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_a_later_stream_of_a_worker_ends_the_former_one(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address) as former,
        scripted_worker(settings, plane.runtime.address, journal_id=former.journal_id) as present,
    ):
        assert await former.code() == grpc.StatusCode.ABORTED
        await plane.start([noop("look")])
        await present.assigned()


async def test_nothing_is_assigned_without_a_credit(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address, credit=1) as hand:
        runs = [await plane.start([noop("look")]) for _ in range(5)]
        ended: set[str] = set()
        for _ in runs:
            key = (await hand.assigned()).key
            hand.result(key)
            await plane.until_ended(key.run_id)
            ended.add(key.run_id)
            await hand.nothing_but("result_recorded", "run_ended")
            hand.credit(1)
    assert ended == set(runs)


@pytest.mark.parametrize(("version", "messages"), [(1, 3), (2, 1)])
async def test_frames_that_are_ready_together_travel_together_to_a_worker_that_knows_that(
    tmp_path: Path, version: int, messages: int
) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, version=version) as hand,
    ):
        before = hand.messages
        hand.say(*(wire.ControlRequest(heartbeat=wire.Heartbeat()) for _ in range(3)))
        renewed = [await hand.next("renewed") for _ in range(3)]
    assert [frame.seq for frame in renewed] == [2, 3, 4]
    assert renewed[-1].ack == 4  # hello, credit and two of the heartbeats had been applied
    assert hand.messages - before == messages


async def test_a_worker_is_welcomed_in_the_version_that_both_speak(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        for spoken, common in ((1, 1), (2, 2), (3, 2)):
            async with scripted_worker(settings, plane.runtime.address, greet=False, version=spoken) as hand:
                hand.hello()
                assert (await hand.next("welcome")).welcome.protocol_version == common


async def test_a_worker_that_says_goodbye_gets_no_more_work(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        hand.say(wire.ControlRequest(goodbye=wire.Goodbye(reason="the test is over")))
        await hand.nothing_but()
        run_id = await plane.start([noop("look")])
        await plane.until_state(run_id, lambda state: bool(state.node_id))
        await hand.nothing_but()
        hand.hang_up()
        assert await hand.code() == grpc.StatusCode.OK


async def test_what_a_worker_that_is_stopping_refuses_goes_to_another_at_once(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, worker_id="noop-2") as stopping,
    ):
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        first = (await stopping.assigned()).key
        async with scripted_worker(settings, plane.runtime.address) as other:
            refused = ended(act.OUTCOME_STATUS_REFUSED, eff.EFFECT_NONE)
            refused.reason = "DRAINING"
            stopping.result(first, refused)
            second = (await other.assigned()).key
            assert (second.step_id, second.attempt) == (first.step_id, 2)
            other.result(second)
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


def test_a_worker_of_another_kind_is_not_waited_for() -> None:
    links = WorkerLinks()
    for kind, worker_id in (("noop", "noop-1"), ("browser", "browser-1")):
        hello = wire.Hello(worker_id=worker_id, capabilities=wire.Capabilities(kind=kind))
        links.by_id[worker_id] = LocalLink(hello, "s", 0.0, credits=1)
    picked = links.pick(Wanted("browser", "noop-1"))
    assert picked is not None
    assert picked.worker_id == "browser-1"
    links.by_id["browser-1"].credits = 0
    assert links.pick(Wanted("browser", "browser-1")) is None
    assert links.pick(Wanted("tool", "noop-1")) is None


async def test_only_open_attempts_are_renewed_and_under_the_present_fence(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        key = (await hand.assigned()).key
        stranger = wire.StepKey(run_id=run_id, step_id=run_id, attempt=1, fence=key.fence)
        old = wire.StepKey(run_id=run_id, step_id=key.step_id, attempt=1, fence=wire.Fence())
        hand.beat(old, stranger)
        assert list((await hand.next("renewed")).renewed.leases) == [key]
        hand.result(key)
        await plane.until_ended(run_id)
        hand.beat(key)
        assert not (await hand.next("renewed")).renewed.leases


async def test_a_result_for_a_run_that_nobody_has_heard_of_waits_and_disturbs_nobody(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        key = (await hand.assigned()).key
        stranger = wire.StepKey(run_id=key.step_id, step_id=key.step_id, attempt=1, fence=key.fence)
        hand.result(stranger)
        hand.result(key)
        assert (await hand.next("result_recorded")).result_recorded.key == key
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_result_that_comes_before_its_run_is_claimed_is_recorded_once_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, journal_id = settings_in(tmp_path), str(uuid4())
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("look")])
        async with scripted_worker(settings, plane.runtime.address, journal_id=journal_id) as hand:
            key = (await hand.assigned()).key
    claim, gate = SqlJournal.claim, asyncio.Event()

    async def late(
        self: SqlJournal, node: Node, *, fold_version: int, limit: int, dead: frozenset[Node], admission: None
    ) -> Claimed:
        await gate.wait()
        return await claim(self, node, fold_version=fold_version, limit=limit, dead=dead, admission=admission)

    monkeypatch.setattr(SqlJournal, "claim", late)
    here = [held(key, wire.HELD_STATE_DONE)]
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, journal_id=journal_id, held=here) as hand,
    ):
        hand.result(key)
        await hand.nothing_but()
        gate.set()
        assert (await hand.next("result_recorded")).result_recorded.key == key
        assert (await plane.until_ended(run_id)).counts.attempts == 1


async def test_the_session_of_a_run_stays_on_its_worker_while_that_is_connected(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, credit=1, worker_id="noop-2") as former,
    ):
        run_id = await plane.start([noop("look"), noop("look again")])
        first = (await former.assigned()).key
        async with scripted_worker(settings, plane.runtime.address, journal_id=str(uuid4())) as other:
            former.result(first)
            await former.next("result_recorded")
            await other.nothing_but()
            former.credit(1)
            former.result((await former.assigned()).key)
            assert (await plane.until_ended(run_id, PATIENCE)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_workers_token_does_not_speak_for_another_worker(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address) as mine,
        scripted_worker(settings, plane.runtime.address, greet=False, token_of="noop-2") as other,
    ):
        other.hello()
        assert await other.code() is grpc.StatusCode.PERMISSION_DENIED
        await mine.nothing_but()
