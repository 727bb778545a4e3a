from __future__ import annotations

from collections import Counter
from pathlib import Path

from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import control_plane, settings_in, worker


async def test_a_run_goes_from_plan_to_end_through_policy_and_a_real_worker(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        state = await plane.until_ended(await plane.start(steps="5"))
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert state.counts.steps_succeeded == 5


async def test_every_assign_has_a_recorded_decision_with_the_deciding_policies(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        state = await plane.until_ended(await plane.start(steps="3"))
    decisions = [attempt.decision for node in state.nodes for attempt in node.attempts]
    assert len(decisions) == 3
    assert all(decision.verdict == pol.VERDICT_ALLOW and decision.policy_ids for decision in decisions)


async def test_a_run_without_a_worker_says_what_is_missing_and_goes_on_when_one_comes(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start(steps="2")
        blocked = await plane.until(run_id, "run_blocked")
        assert blocked.body.run_blocked.reason == "NO_WORKER"
        async with worker(settings, plane.runtime.address):
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_without_the_policy_engine_nothing_is_dispatched_and_the_run_says_why(tmp_path: Path) -> None:
    settings = settings_in(tmp_path, peers={"policy-engine": "127.0.0.1:9"})
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        run_id = await plane.start(steps="2")
        blocked = await plane.until(run_id, "run_blocked")
        kinds = Counter(event.kind for event in await plane.journal.read(run_id))
    assert blocked.body.run_blocked.reason == "POLICY_UNAVAILABLE"
    assert kinds[ev.EventBody.STEP_INTENDED_FIELD_NUMBER] == 0


async def test_a_paused_run_starts_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start(steps="3")
        await plane.until(run_id, "owner_changed")
        await plane.command(run_id, cmd.Command(pause=cmd.PauseCommand()))
        await plane.until(run_id, "command_applied")
        async with worker(settings, plane.runtime.address):
            kinds = Counter(event.kind for event in await plane.journal.read(run_id))
            assert kinds[ev.EventBody.STEP_INTENDED_FIELD_NUMBER] == 0
            await plane.command(run_id, cmd.Command(resume=cmd.ResumeCommand()))
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_cancelled_run_ends_with_nothing_open(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start(steps="3")
        await plane.command(run_id, cmd.Command(cancel=cmd.CancelCommand(reason="enough")))
        state = await plane.until_ended(run_id)
    assert state.phase == ev.RUN_PHASE_CANCELLED
    assert state.counts.open_intents == 0


async def test_a_run_goes_on_under_a_new_epoch_after_the_control_plane_restarted(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start(steps="3")
        await plane.until(run_id, "run_blocked")
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        state = await plane.until_ended(run_id)
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert state.epoch == 2
    assert state.counts.takeovers == 1
