"""A result, its verdict and the next intent in one commit: not at the price of the result, of control or of policy."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from control.journal import Append, Appended, ApprovalStatus
from control.orchestrator.service import SERVICE as ORCHESTRATOR
from infra.errors import Unavailable
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.policy.v1 import policy_service_pb2 as policy_api
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import ControlPlane, control_plane, noop, settings_in, worker
from tests.control.orchestrator.scripted import policy, scripted_worker

ONE_COMMIT = ["step_finished", "step_validated", "policy_decided", "step_intended"]


async def test_a_result_its_verdict_and_the_next_intent_are_one_commit(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        run_id = await plane.start([noop("first"), noop("second")])
        state = await plane.until_ended(run_id)
        assert ONE_COMMIT in await _commits(plane, run_id)
    assert (state.phase, state.counts.attempts) == (ev.RUN_PHASE_SUCCEEDED, 2)


async def test_the_next_assign_follows_the_word_that_the_result_is_recorded(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("first"), noop("second")])
        first = (await hand.assigned()).key
        hand.result(first)
        assert (await hand.next("result_recorded", "assign")).result_recorded.key == first
        second = await hand.assigned()
        attempt = (await plane.state(run_id)).nodes[1].attempts[0]
    assert attempt.open
    assert attempt.decision.decision_id == second.decision_id


async def test_a_result_does_not_wait_for_policy_to_think_about_the_next_step(tmp_path: Path) -> None:
    thought = asyncio.Event()

    async def slow_about_the_second(request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
        if request.action.noop.payload == b"second":
            await thought.wait()
        return pol.VERDICT_ALLOW

    settings = settings_in(tmp_path)
    services = (policy(slow_about_the_second), ORCHESTRATOR)
    async with control_plane(settings, services) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("first"), noop("second")])
        first = (await hand.assigned()).key
        hand.result(first)
        assert (await hand.next("result_recorded", "assign")).result_recorded.key == first
        assert (await plane.state(run_id)).nodes[0].state == ev.NODE_STATE_SUCCEEDED
        thought.set()
        hand.result((await hand.assigned()).key)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_result_is_recorded_when_policy_has_no_answer_about_the_next_step(tmp_path: Path) -> None:
    away = [True]

    async def away_for_the_second(request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
        if request.action.noop.payload == b"second" and away[0]:
            raise Unavailable("ENGINE_AWAY", "the test wants it so")
        return pol.VERDICT_ALLOW

    settings = settings_in(tmp_path)
    services = (policy(away_for_the_second), ORCHESTRATOR)
    async with control_plane(settings, services) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("first"), noop("second")])
        hand.result((await hand.assigned()).key)
        await plane.until_state(run_id, lambda state: state.blocked_reason == "POLICY_UNAVAILABLE")
        assert (await plane.state(run_id)).nodes[0].state == ev.NODE_STATE_SUCCEEDED
        away[0] = False
        hand.result((await hand.assigned()).key)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_command_given_before_the_commit_keeps_the_next_intent_out_and_not_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("first"), noop("second")])
        first = (await hand.assigned()).key
        append, pauses = plane.journal.append, [cmd.Command(pause=cmd.PauseCommand())]

        async def after_a_pause(appended: Append) -> Appended:
            if pauses:
                await plane.command(run_id, pauses.pop())
            return await append(appended)

        monkeypatch.setattr(plane.journal, "append", after_a_pause)
        hand.result(first)
        assert (await hand.next("result_recorded", "assign")).result_recorded.key == first
        await plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSED)
        await hand.nothing_but()
        paused = await plane.state(run_id)
        await plane.command(run_id, cmd.Command(resume=cmd.ResumeCommand()))
        hand.result((await hand.assigned()).key)
        await plane.until_ended(run_id)
    assert paused.nodes[0].state == ev.NODE_STATE_SUCCEEDED
    assert not paused.nodes[1].attempts


async def test_a_step_that_a_person_is_asked_about_does_not_join(tmp_path: Path) -> None:
    async def ask(request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
        asks = request.action.noop.payload == b"second" and not request.approved
        return pol.VERDICT_ASK if asks else pol.VERDICT_ALLOW

    settings = settings_in(tmp_path)
    services = (policy(ask), ORCHESTRATOR)
    async with control_plane(settings, services) as plane, worker(settings, plane.runtime.address):
        run_id = await plane.start([noop("first"), noop("second"), noop("third")])
        waiting = await plane.until_state(run_id, lambda state: bool(state.approvals))
        await plane.decide(run_id, waiting.approvals[0].approval_id, ApprovalStatus.GRANTED)
        state = await plane.until_ended(run_id)
        commits = await _commits(plane, run_id)
    assert (state.phase, state.counts.attempts) == (ev.RUN_PHASE_SUCCEEDED, 3)
    assert commits.count(ONE_COMMIT) == 1  # of the first and the third, which goes on while a person thinks


async def test_credits_are_as_before_when_an_attempt_could_not_join(tmp_path: Path) -> None:
    """With one credit and many steps, one that was taken and not given back would stop the run."""
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address, credit=1) as hand:
        run_id = await plane.start([noop(str(number)) for number in range(5)])
        for _ in range(5):
            hand.result((await hand.assigned()).key)
            hand.credit(1)
        assert (await plane.until_ended(run_id)).counts.attempts == 5


async def _commits(plane: ControlPlane, run_id: str) -> list[list[str]]:
    """Kinds of events, commit by commit."""
    found: dict[str, list[str]] = {}
    for stored, kind in zip(await plane.journal.read(run_id), await plane.kinds(run_id), strict=True):
        found.setdefault(stored.append_id, []).append(kind)
    return list(found.values())
