"""Control as the owner of a run keeps it: commands, approvals, and what may still start after them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

from control.core.run import terminal
from control.journal import ApprovalStatus, Command
from control.orchestrator.service import SERVICE as ORCHESTRATOR
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.policy.v1 import policy_service_pb2 as policy_api
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from skyagent.run.v1.run_service_pb2 import RunSummary
from tests.control.orchestrator.harness import CLOCK, ControlPlane, control_plane, noop, settings_in, worker
from tests.control.orchestrator.scripted import ended, held, policy, scripted_worker

JOURNAL = str(uuid4())
PAUSE = cmd.Command(pause=cmd.PauseCommand())
RESUME = cmd.Command(resume=cmd.ResumeCommand())


async def _ask(request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
    return pol.VERDICT_ALLOW if request.approved else pol.VERDICT_ASK


def _paused(state: st.RunState) -> bool:
    return state.phase == ev.RUN_PHASE_PAUSED


async def _question(plane: ControlPlane, run_id: str, number: int = 1) -> st.ApprovalRecord:
    state = await plane.until_state(run_id, lambda state: len(state.approvals) == number)
    return state.approvals[-1]


async def test_a_pause_between_the_decision_and_the_intent_lets_nothing_start(tmp_path: Path) -> None:
    asked, paused = asyncio.Event(), asyncio.Event()

    async def slowly(_request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
        asked.set()
        await paused.wait()
        return pol.VERDICT_ALLOW

    settings = settings_in(tmp_path)
    services = (policy(slowly), ORCHESTRATOR)
    async with (
        control_plane(settings, services) as plane,
        scripted_worker(settings, plane.runtime.address) as hand,
    ):
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        await asked.wait()
        await plane.command(run_id, PAUSE)
        paused.set()
        await plane.until_state(run_id, _paused)
        await hand.nothing_but()
        assert "step_intended" not in await plane.kinds(run_id)
        await plane.command(run_id, RESUME)
        hand.result((await hand.assigned()).key)
        assert (await plane.until_ended(run_id)).counts.attempts == 1


async def test_a_command_of_a_newer_version_stays_pending_and_nothing_starts_before_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    unknown = b"\xfa\x7f\x00"  # field 2047 of Command, an empty message
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("one")])
        await plane.until(run_id, "run_blocked")  # no worker yet
        await plane.journal.command(Command(str(uuid4()), run_id, "default", "SOMETHING", "ann", unknown))
        async with worker(settings, plane.runtime.address):
            blocked = await plane.until_state(run_id, lambda state: state.blocked_reason == "INTERNAL_ERROR")
        (pending,) = await plane.journal.pending_commands(run_id)
        assert "needs a newer node" in blocked.blocked_detail
        assert f"command {pending.cmd_id} (SOMETHING)" in blocked.blocked_detail
        assert (await plane.state(run_id)).counts.attempts == 0


async def test_a_pause_lets_what_was_assigned_finish_and_records_its_result(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look"), noop("look again")])
        key = (await hand.assigned()).key
        await plane.command(run_id, PAUSE)
        await plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSING)
        hand.result(key)
        state = await plane.until_state(run_id, _paused)
        await hand.nothing_but("result_recorded")
    assert state.nodes[0].attempts[0].finished_seq
    assert state.counts.attempts == 1


async def test_an_intent_that_never_began_is_withdrawn_by_a_pause_and_tried_again_after_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = (await hand.assigned()).key
        await plane.command(run_id, PAUSE)
        await plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSING)
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            asked = (await hand.next("inspect")).inspect.key
            assert asked == first
            hand.state(asked, wire.HELD_STATE_NEVER_BEGUN)
            state = await plane.until_state(run_id, _paused)
            assert state.nodes[0].attempts[0].withdrawn
            await hand.nothing_but()
            await plane.command(run_id, RESUME)
            again = (await hand.assigned()).key
            assert again.attempt == 2
            hand.result(again)
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_recovery_assigns_nothing_once_a_command_is_given_even_before_it_is_applied(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            await hand.assigned()
        # Straight into the table: no wake tells the owner.
        await plane.sql("UPDATE runs SET control_gen = control_gen + 1 WHERE run_id = ?", run_id)
        await plane.sql(
            "INSERT INTO run_commands (cmd_id, run_id, kind, actor, payload, created_ms, control_gen)"
            " SELECT 'silent', run_id, 'PAUSE', 'ann', ?, 0, control_gen FROM runs WHERE run_id = ?",
            PAUSE.SerializeToString(),  # pyright: ignore[reportArgumentType] -- SQLite takes bytes
            run_id,
        )
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            await hand.next("inspect")
            await hand.nothing_but()


async def test_a_cancelled_run_ends_only_when_its_open_attempt_has_said_what_it_did(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        key = (await hand.assigned()).key
        command = cmd.CancelCommand(reason="enough")
        command.grace.FromMilliseconds(60_000)
        await plane.command(run_id, cmd.Command(cancel=command))
        cancel = (await hand.next("cancel")).cancel
        assert (cancel.key, cancel.reason) == (key, "enough")
        assert 0 < cancel.grace.ToMilliseconds() <= 60_000
        assert (await plane.state(run_id)).phase == ev.RUN_PHASE_CANCELLING
        hand.result(key, ended(act.OUTCOME_STATUS_CANCELLED, eff.EFFECT_NONE))
        state = await plane.until_ended(run_id)
        assert (await hand.next("run_ended")).run_ended.run_id == run_id
    assert state.phase == ev.RUN_PHASE_CANCELLED
    assert state.counts.open_intents == 0


async def test_after_its_deadline_a_run_starts_nothing_and_ends_once_what_is_open_has_said_what_it_did(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    command = cmd.DeadlineCommand()
    command.deadline.FromMilliseconds(CLOCK.now_ms())
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE), noop("post again")])
        key = (await hand.assigned()).key
        await plane.command(run_id, cmd.Command(deadline=command))
        cancel = (await hand.next("cancel")).cancel
        assert (cancel.key, cancel.reason) == (key, "the deadline of its run has passed")
        assert not terminal((await plane.state(run_id)).phase)
        hand.result(key, ended(act.OUTCOME_STATUS_CANCELLED, eff.EFFECT_NONE))
        state = await plane.until_ended(run_id)
        await hand.nothing_but("result_recorded", "run_ended")
    assert (state.phase, state.reason) == (ev.RUN_PHASE_FAILED, "DEADLINE")
    assert f"its deadline {command.deadline.ToJsonString()} has passed" in state.summary
    assert (state.counts.open_intents, state.counts.attempts) == (0, 1)


async def test_a_deadline_ends_a_run_that_is_paused_or_waits_for_a_worker(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    command = cmd.DeadlineCommand()
    command.deadline.FromMilliseconds(CLOCK.now_ms() + 700)
    async with control_plane(settings) as plane:
        waiting, paused = [await plane.start([noop("look")]) for _ in range(2)]
        await plane.command(paused, PAUSE)
        for run_id in (waiting, paused):
            await plane.command(run_id, cmd.Command(deadline=command))
        for run_id in (waiting, paused):
            assert (await plane.until_ended(run_id)).reason == "DEADLINE"


async def test_the_grace_of_a_cancellation_outlives_the_owner_who_granted_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    command = cmd.CancelCommand()
    command.grace.FromMilliseconds(60_000)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            key = (await hand.assigned()).key
            await plane.command(run_id, cmd.Command(cancel=command))
            first = (await hand.next("cancel")).cancel.grace.ToMilliseconds()
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL, held=[held(key)]) as hand,
    ):
        assert 5_000 < (await hand.next("cancel")).cancel.grace.ToMilliseconds() < first


async def test_a_run_that_ends_takes_its_open_question_with_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings, (policy(_ask), ORCHESTRATOR)) as plane:
        run_id = await plane.start([noop("look")])
        asked = await _question(plane, run_id)
        await plane.command(run_id, cmd.Command(cancel=cmd.CancelCommand()))
        state = await plane.until_ended(run_id)
        stored = await plane.journal.approval(asked.approval_id)
        listed = await plane.journal.listing(run_id, tenant="default")
    assert stored.status is ApprovalStatus.EXPIRED
    assert [approval.state for approval in state.approvals] == [ev.APPROVAL_STATE_EXPIRED]
    assert listed.projection is not None
    assert RunSummary.FromString(listed.projection.body).waiting_for_person == 0


async def test_cancelling_what_a_worker_does_not_know_sends_the_cancel_and_not_the_assign(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = (await hand.assigned()).key
        await plane.command(run_id, cmd.Command(cancel=cmd.CancelCommand()))
        await plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_CANCELLING)
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            assert (await hand.next("cancel")).cancel.key == first
            await hand.nothing_but()
            hand.result(first, ended(act.OUTCOME_STATUS_CANCELLED, eff.EFFECT_NONE))
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_CANCELLED


async def test_a_worker_is_told_which_of_its_runs_are_over(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("look")])
        await plane.command(run_id, cmd.Command(cancel=cmd.CancelCommand()))
        await plane.until_ended(run_id)
        key = wire.StepKey(run_id=run_id, step_id=run_id, attempt=1, fence=wire.Fence(epoch=1))
        async with scripted_worker(settings, plane.runtime.address, greet=False) as hand:
            hand.hello([held(key, wire.HELD_STATE_DONE)])
            assert list((await hand.next("welcome")).welcome.ended_runs) == [run_id]


async def test_an_approval_is_used_up_by_the_intent_and_by_no_other(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings, (policy(_ask), ORCHESTRATOR)) as plane,
        scripted_worker(settings, plane.runtime.address) as hand,
    ):
        run_id = await plane.start([noop("look")])
        first = await _question(plane, run_id)
        await plane.decide(run_id, first.approval_id)
        key = (await hand.assigned()).key
        stored = await plane.journal.approval(first.approval_id)
        assert stored.status is ApprovalStatus.CONSUMED
        hand.result(key, ended(act.OUTCOME_STATUS_FAILED, eff.EFFECT_NONE))
        second = await _question(plane, run_id, 2)
        state = await plane.state(run_id)
        await hand.nothing_but("result_recorded")
    assert second.approval_id != first.approval_id
    assert state.approvals[0].state == ev.APPROVAL_STATE_CONSUMED
    assert state.nodes[0].attempts[0].approval_id == first.approval_id
    assert state.counts.attempts == 1


async def test_an_approval_for_another_action_is_refused_and_the_person_is_asked_anew(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings, (policy(_ask), ORCHESTRATOR)) as plane,
        scripted_worker(settings, plane.runtime.address) as hand,
    ):
        run_id = await plane.start([noop("post", eff.EFFECT_CLASS_ONCE)])
        first = await _question(plane, run_id)
        await plane.sql(
            "UPDATE approvals SET action_digest = ? WHERE approval_id = ?", "b3:" + "0" * 64, first.approval_id
        )
        await plane.decide(run_id, first.approval_id)
        second = await _question(plane, run_id, 2)
        await hand.nothing_but()
        assert "step_intended" not in await plane.kinds(run_id)
        assert "run_blocked" in await plane.kinds(run_id)
        await plane.decide(run_id, second.approval_id)
        hand.result((await hand.assigned()).key)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_denied_approval_denies_the_step(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings, (policy(_ask), ORCHESTRATOR)) as plane,
        scripted_worker(settings, plane.runtime.address) as hand,
    ):
        run_id = await plane.start([noop("look")])
        await plane.decide(run_id, (await _question(plane, run_id)).approval_id, ApprovalStatus.DENIED)
        state = await plane.until_ended(run_id)
        await hand.nothing_but()
    assert (state.phase, state.reason) == (ev.RUN_PHASE_FAILED, "DENIED")
    assert state.nodes[0].reason == "denied by ann"


async def test_a_question_that_nobody_answers_in_time_is_a_no(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings, (policy(_ask), ORCHESTRATOR)) as plane,
        scripted_worker(settings, plane.runtime.address) as hand,
    ):
        run_id = await plane.start([noop("look")], approval_ttl_ms=300)
        approval = await _question(plane, run_id)
        state = await plane.until_ended(run_id)
        assert (await plane.journal.approval(approval.approval_id)).status is ApprovalStatus.EXPIRED
        await hand.nothing_but()
    assert state.nodes[0].reason == "nobody answered in time"


async def test_policy_is_asked_again_after_the_persons_yes_and_has_the_last_word(tmp_path: Path) -> None:
    async def ask_then_deny(request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
        return pol.VERDICT_DENY if request.approved else pol.VERDICT_ASK

    settings = settings_in(tmp_path)
    async with (
        control_plane(settings, (policy(ask_then_deny), ORCHESTRATOR)) as plane,
        scripted_worker(settings, plane.runtime.address) as hand,
    ):
        run_id = await plane.start([noop("look")])
        await plane.decide(run_id, (await _question(plane, run_id)).approval_id)
        state = await plane.until_ended(run_id)
        await hand.nothing_but()
    assert state.nodes[0].state == ev.NODE_STATE_DENIED
    assert state.counts.attempts == 0


async def test_a_result_is_recorded_while_policy_is_thinking(tmp_path: Path) -> None:
    thinking, thought = asyncio.Event(), asyncio.Event()
    calls: list[str] = []

    async def slow_from_the_second_on(request: policy_api.CheckRequest) -> pol.Verdict.ValueType:
        calls.append(request.step_id)
        if len(calls) > 1:  # also when it is asked again because it thought too long
            thinking.set()
            await thought.wait()
        return pol.VERDICT_ALLOW

    settings = settings_in(tmp_path)
    async with (
        control_plane(settings, (policy(slow_from_the_second_on), ORCHESTRATOR)) as plane,
    ):
        run_id = await plane.start([noop("look")])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = (await hand.assigned()).key
        await asyncio.wait_for(thinking.wait(), 10)
        async with scripted_worker(
            settings, plane.runtime.address, journal_id=JOURNAL, held=[held(first, wire.HELD_STATE_DONE)]
        ) as hand:
            hand.result(first)
            assert (await hand.next("result_recorded")).result_recorded.key == first
            thought.set()
            hand.result((await hand.assigned()).key)
            assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
        assert (await plane.kinds(run_id)).count("late_result") == 1
