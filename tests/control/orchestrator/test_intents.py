"""The ledger as the owner of a run keeps it: from the intent to the recorded result, and what becomes of lost ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from control.journal import open_journal
from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.blobs import shared_blobs
from infra.db import open_database
from infra.digest import digest_message
from infra.settings import Settings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import CLOCK, control_plane, noop, settings_in, worker
from tests.control.orchestrator.scripted import ended, held, scripted_worker

ONCE = eff.EFFECT_CLASS_ONCE
READ = eff.EFFECT_CLASS_READ
LOST = ended(act.OUTCOME_STATUS_LOST, eff.EFFECT_UNKNOWN)
JOURNAL = str(uuid4())


async def test_an_assign_is_sent_only_after_its_intent_is_durable_and_names_worker_journal_and_action(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand,
    ):
        run_id = await plane.start([noop("look")])
        assign = await hand.assigned()
        attempt = (await plane.state(run_id)).nodes[0].attempts[0]
        head = await plane.journal.head(run_id)
    assert attempt.open
    assert (attempt.worker_id, attempt.journal_id) == ("noop-1", JOURNAL)
    assert attempt.action_digest == assign.action_digest == digest_message(assign.action)
    assert attempt.decision.decision_id == assign.decision_id
    assert (assign.key.fence.log_generation, assign.key.fence.epoch) == (head.log_generation, head.epoch)


async def test_a_worker_may_let_go_only_after_its_result_is_durable(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look"), noop("look again")])
        assign = await hand.assigned()
        hand.result(assign.key)
        recorded = (await hand.next("result_recorded")).result_recorded
        attempt = (await plane.state(run_id)).nodes[0].attempts[0]
    assert recorded.key == assign.key
    assert not attempt.open
    assert attempt.finished_seq


async def test_a_result_that_comes_twice_is_recorded_once_and_acknowledged_twice(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look"), noop("look again")])
        assign = await hand.assigned()
        hand.result(assign.key)
        hand.result(assign.key)
        frames = [await hand.next("result_recorded", "assign") for _ in range(3)]
        recorded = [frame.result_recorded.key for frame in frames if frame.HasField("result_recorded")]
        assert recorded == [assign.key, assign.key]
        hand.result(next(frame.assign.key for frame in frames if frame.HasField("assign")))
        await plane.until_ended(run_id)
        kinds = await plane.kinds(run_id)
    assert kinds.count("step_finished") == 2
    assert "late_result" not in kinds


async def test_a_result_is_taken_under_whatever_fence_it_comes(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        key = (await hand.assigned()).key
        key.fence.epoch = 0
        hand.result(key)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_running_attempt_is_taken_over_by_inspect_and_not_assigned_again(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("look")])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = await hand.assigned()
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL, held=[held(first.key)]) as hand,
    ):
        asked = (await hand.next("inspect")).inspect
        assert asked.key.fence.epoch == first.key.fence.epoch + 1
        hand.state(asked.key, wire.HELD_STATE_RUNNING)
        await hand.nothing_but()
        hand.result(asked.key)
        state = await plane.until_ended(run_id)
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert state.counts.attempts == 1


async def test_an_outcome_in_the_answer_to_inspect_is_not_recorded_before_its_evidence_is_stored(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("look")])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = await hand.assigned()
    async with (
        control_plane(settings) as plane,
        scripted_worker(
            settings, plane.runtime.address, journal_id=JOURNAL, held=[held(first.key, wire.HELD_STATE_DONE)]
        ) as hand,
    ):
        asked = (await hand.next("inspect")).inspect
        told = wire.StepState(key=asked.key, state=wire.HELD_STATE_DONE, outcome=ended())
        hand.say(wire.ControlRequest(step_state=told))
        await hand.nothing_but()
        assert "step_finished" not in await plane.kinds(run_id)
        hand.result(asked.key)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_what_its_very_journal_does_not_know_is_assigned_again_under_the_same_key(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = await hand.assigned()
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            again = await hand.assigned()
            hand.result(again.key)
            state = await plane.until_ended(run_id)
    assert again.key == first.key
    assert state.counts.attempts == 1
    assert state.phase == ev.RUN_PHASE_SUCCEEDED


async def test_another_journal_cannot_say_that_a_post_never_began(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", ONCE)])
        async with scripted_worker(settings, plane.runtime.address) as hand:
            await hand.assigned()
        async with scripted_worker(settings, plane.runtime.address):
            state = await plane.until_state(run_id, lambda state: state.counts.uncertain == 1)
    assert "another journal" in state.nodes[0].reason
    assert state.counts.attempts == 1


async def test_what_may_run_again_moves_to_another_worker_once_the_lease_is_over(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("look", READ)])
        async with scripted_worker(settings, plane.runtime.address, worker_id="noop-2") as hand:
            await hand.assigned()
        async with worker(settings, plane.runtime.address):
            state = await plane.until_ended(run_id)
    assert [attempt.worker_id for attempt in state.nodes[0].attempts] == ["noop-2", "noop-1"]
    assert state.nodes[0].attempts[0].status == act.OUTCOME_STATUS_LOST


@pytest.mark.parametrize("effect", [ONCE, eff.EFFECT_CLASS_PROBEABLE])
async def test_what_may_not_run_twice_waits_for_its_worker_however_long(
    tmp_path: Path, effect: eff.EffectClass.ValueType
) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", effect)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL, worker_id="noop-2") as hand:
            first = await hand.assigned()
        async with worker(settings, plane.runtime.address):
            blocked = await plane.until(run_id, "run_blocked")
            assert blocked.body.run_blocked.reason == "WORKER_AWAY"
            back = scripted_worker(
                settings, plane.runtime.address, journal_id=JOURNAL, held=[held(first.key)], worker_id="noop-2"
            )
            async with back as hand:
                await plane.until(run_id, "run_unblocked")
                hand.result(first.key)
                state = await plane.until_ended(run_id)
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert state.counts.attempts == 1


async def test_a_person_may_answer_for_a_worker_that_is_away_and_its_late_word_is_kept_as_a_contradiction(
    tmp_path: Path,
) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = await hand.assigned()
        await plane.until(run_id, "run_blocked")
        step_id = first.key.step_id
        await plane.command(run_id, cmd.Command(resolve=cmd.ResolveCommand(step_id=step_id, effect=eff.EFFECT_DONE)))
        state = await plane.until_ended(run_id)
        assert state.phase == ev.RUN_PHASE_SUCCEEDED
        async with scripted_worker(
            settings, plane.runtime.address, journal_id=JOURNAL, held=[held(first.key, wire.HELD_STATE_TOMBSTONE)]
        ) as hand:
            hand.result(first.key, ended(act.OUTCOME_STATUS_REFUSED, eff.EFFECT_NONE))
            hand.result(first.key, ended(act.OUTCOME_STATUS_REFUSED, eff.EFFECT_NONE))
            await hand.next("result_recorded")
            await hand.next("result_recorded")
        late = await plane.until(run_id, "late_result")
        assert (await plane.kinds(run_id)).count("late_result") == 1
        assert late.body.late_result.contradicts
        assert (await plane.state(run_id)).phase == ev.RUN_PHASE_SUCCEEDED


async def test_a_persons_word_is_not_taken_for_a_step_whose_worker_is_there(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("post", ONCE)])
        key = (await hand.assigned()).key
        answer = cmd.ResolveCommand(step_id=key.step_id, effect=eff.EFFECT_NONE)
        await plane.command(run_id, cmd.Command(resolve=answer))
        await plane.until(run_id, "command_applied")
        assert (await plane.state(run_id)).nodes[0].attempts[0].open
        hand.result(key)
        state = await plane.until_ended(run_id)
    assert state.counts.attempts == 1


async def test_a_word_on_a_step_that_is_not_in_the_plan_is_applied_and_changes_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("look")])
        key = (await hand.assigned()).key
        await plane.command(run_id, cmd.Command(resolve=cmd.ResolveCommand(step_id="nobody", effect=eff.EFFECT_DONE)))
        await plane.until(run_id, "command_applied")
        hand.result(key)
        assert (await plane.until_ended(run_id)).phase == ev.RUN_PHASE_SUCCEEDED
        assert "run_blocked" not in await plane.kinds(run_id)


@pytest.mark.parametrize(("effect", "attempts"), [(eff.EFFECT_DONE, 1), (eff.EFFECT_NONE, 2)])
async def test_a_post_that_was_lost_is_uncertain_until_a_person_says_whether_it_happened(
    tmp_path: Path, effect: eff.Effect.ValueType, attempts: int
) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("post", ONCE)])
        key = (await hand.assigned()).key
        hand.result(key, LOST)
        state = await plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_WAITING)
        assert "as the test says" in state.nodes[0].reason
        assert "noop-1" in state.nodes[0].reason
        await plane.command(run_id, cmd.Command(resolve=cmd.ResolveCommand(step_id=key.step_id, effect=effect)))
        if effect == eff.EFFECT_NONE:
            again = (await hand.assigned()).key
            assert again.attempt == 2
            hand.result(again)
        state = await plane.until_ended(run_id)
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert state.counts.attempts == attempts


async def test_a_late_result_settles_what_was_uncertain(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", ONCE)])
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand:
            first = await hand.assigned()
        async with scripted_worker(settings, plane.runtime.address):
            await plane.until_state(run_id, lambda state: state.counts.uncertain == 1)
        here = [held(first.key, wire.HELD_STATE_DONE)]
        async with scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL, held=here) as hand:
            hand.result(first.key)
            state = await plane.until_ended(run_id)
        resolved = await plane.until(run_id, "uncertainty_resolved")
    assert state.phase == ev.RUN_PHASE_SUCCEEDED
    assert resolved.body.uncertainty_resolved.source == "late result"


async def test_an_outcome_that_its_worker_has_let_go_of_parks_the_run_and_counts_as_begun_and_lost(
    tmp_path: Path,
) -> None:
    """The log was restored from before the attempt was even intended; its worker has let go of it."""
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        run_id = await plane.start([noop("post", ONCE)])
        await plane.until(run_id, "owner_changed")
    backup = settings.journal_path.read_bytes()
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand,
    ):
        first = (await hand.assigned()).key
        hand.result(first)
        await hand.next("result_recorded")
    await _restored(settings, backup)
    async with (
        control_plane(settings) as plane,
        scripted_worker(settings, plane.runtime.address, journal_id=JOURNAL) as hand,
    ):
        again = (await hand.assigned()).key
        assert (again.step_id, again.attempt) == (first.step_id, first.attempt)
        assert again.fence.log_generation > first.fence.log_generation
        hand.state(again, wire.HELD_STATE_RELEASED)
        parked = await plane.until_state(run_id, lambda state: state.blocked_reason == "LOG_BEHIND")
        assert "let go of its outcome" in parked.blocked_detail
        assert parked.counts.open_intents == 0
        await hand.nothing_but()
        await plane.command(run_id, cmd.Command(resume=cmd.ResumeCommand()))
        state = await plane.until_state(run_id, lambda state: state.counts.uncertain == 1)
    assert "let go of its outcome" in state.nodes[0].reason
    assert state.counts.attempts == 1


async def test_a_worker_that_was_told_that_the_run_is_over_parks_it(tmp_path: Path) -> None:
    """Only a log that was restored from before the end can assign anything of it again."""
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("post", ONCE)])
        refused = ended(act.OUTCOME_STATUS_REFUSED, eff.EFFECT_NONE)
        refused.reason = "RUN_ENDED"
        hand.result((await hand.assigned()).key, refused)
        parked = await plane.until_state(run_id, lambda state: state.blocked_reason == "LOG_BEHIND")
        assert "told that the run is over" in parked.blocked_detail
        await plane.command(run_id, cmd.Command(resume=cmd.ResumeCommand()))
        state = await plane.until_state(run_id, lambda state: state.counts.uncertain == 1)
    assert state.nodes[0].attempts[0].effect == eff.EFFECT_UNKNOWN


async def _restored(settings: Settings, backup: bytes) -> None:
    for file in settings.journal_path.parent.glob(settings.journal_path.name + "*"):
        if file.suffix != ".lock":
            file.unlink()
    settings.journal_path.write_bytes(backup)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        await journal.begin_generation()


async def test_a_worker_that_obeys_a_later_owner_parks_the_run(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address) as hand:
        run_id = await plane.start([noop("post", ONCE)])
        hand.state((await hand.assigned()).key, wire.HELD_STATE_NEVER_BEGUN)
        state = await plane.until_state(run_id, lambda state: state.blocked_reason == "LOG_BEHIND")
        await hand.nothing_but()
    assert "obeys a later owner" in state.blocked_detail


async def test_a_worker_that_did_what_the_log_does_not_know_parks_the_run_and_keeps_its_outcome(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, scripted_worker(settings, plane.runtime.address, credit=0) as hand:
        run_id = await plane.start([noop("look")])
        state = await plane.until_state(run_id, lambda state: bool(state.node_id))
        key = wire.StepKey(run_id=run_id, step_id=state.nodes[0].node.node_id, attempt=1, fence=wire.Fence(epoch=9))
        hand.result(key)
        await plane.until_state(run_id, lambda state: state.blocked_reason == "LOG_BEHIND")
        hand.credit()
        await hand.nothing_but()
        await plane.command(run_id, cmd.Command(resume=cmd.ResumeCommand()))
        assert (await hand.assigned()).key.attempt == 1


class Witness(NoopExecutor):
    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> act.Outcome:
        outcome = await super().execute(assignment, blobs, progress)
        outcome.blobs.append(await blobs.put(b"seen", "text/plain", "evidence"))
        return outcome


async def test_evidence_is_stored_before_an_event_names_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address, Witness()):
        finished = await plane.until(await plane.start(steps="1"), "step_finished")
        blobs = await plane.runtime.shared(shared_blobs)
        (blob,) = finished.body.step_finished.outcome.blobs
        assert await blobs.get(blob.digest) == b"seen"
