"""What a worker answers, frame by frame, to a control plane that a test plays."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest

from execution import session
from execution import worker as worker_module
from execution.attempts import AttemptKey
from execution.joints import Joint
from infra.clock import ManualClock, SystemClock
from infra.errors import Conflict, Denied, Internal, Precondition, SkyError, Unauthenticated, Unavailable
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action, ActionBatch
from skyagent.execution.v1.browser_pb2 import BrowserAction, ReloadAction
from tests.execution.actors import Actor, Immediate, done, settings, working
from tests.execution.control_plane import ControlPlane, assign, control_plane, noop, step_key, ulid

REFUSED = action_pb2.OUTCOME_STATUS_REFUSED
CANCELLED = action_pb2.OUTCOME_STATUS_CANCELLED
OK = action_pb2.OUTCOME_STATUS_OK
NONE, DONE, UNKNOWN = effect_pb2.EFFECT_NONE, effect_pb2.EFFECT_DONE, effect_pb2.EFFECT_UNKNOWN
READ = effect_pb2.EFFECT_CLASS_READ


@pytest.fixture
async def plane() -> AsyncGenerator[ControlPlane]:
    async with control_plane() as running:
        yield running


@pytest.fixture
def actor() -> Actor:
    return Actor()


async def test_introduces_itself_and_asks_for_as_much_work_as_it_can_do(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    token = tmp_path / "token"
    token.write_text("sesame\n")
    chosen = settings(plane.address, tmp_path, token_file=token, labels={"zone": "a"}, max_concurrent_steps=3)
    actor.resident_runs = [ulid(7)]
    async with working(actor, chosen):
        link = await plane.accept()
        hello = await link.hello()
        assert link.metadata["authorization"] == "Bearer sesame"
        assert (hello.worker_id, hello.protocol_version) == ("noop-1", 2)
        assert hello.capabilities.kind == "noop"
        assert hello.capabilities.actions == ["noop/1"]
        assert hello.capabilities.labels == {"zone": "a"}
        assert hello.capabilities.resident_runs == [ulid(7)]
        link.welcome()
        assert (await link.next("credit")).credit.steps == 3


async def test_accepts_executes_reports_and_then_asks_for_more(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)):
        link = await plane.meet()
        await link.next("credit")
        before = SystemClock().now_ms()
        asked = assign(step_key(), noop(b"ping"))
        asked.tenant = "acme"
        asked.allowed_hosts.append("example.com")
        link.assign(asked)
        assert (await link.next("step_accepted")).step_accepted.key == asked.key
        running = await actor.next()
        assert (running.action, running.tenant, running.allowed_hosts) == (asked.action, "acme", ("example.com",))
        assert (await link.next("step_progress")).step_progress.message == "acting"
        actor.let(running, done("pong"))
        result = await link.result()
        assert result.key == asked.key
        assert (result.outcome.status, result.outcome.effect, result.outcome.message) == (OK, DONE, "pong")
        assert result.action_digest == asked.action_digest
        began, ended = result.outcome.start_time.ToMilliseconds(), result.outcome.end_time.ToMilliseconds()
        assert before <= began <= ended <= SystemClock().now_ms()
        assert (await link.next("credit")).credit.steps == 1


async def test_asks_again_when_a_quarter_of_its_room_is_free(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=8)):
        link = await plane.meet()
        assert (await link.next("credit")).credit.steps == 8
        for step in range(1, 9):
            link.assign(assign(step_key(step)))
        running = [await actor.next() for _ in range(8)]
        for step in (0, 1):
            assert link.waiting("credit") == 0
            actor.let(running[step])
            await link.result()
        assert (await link.next("credit")).credit.steps == 2


async def test_asks_for_nothing_while_nobody_records_what_it_did(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MAX_UNRELEASED", 2)
    async with working(Immediate(), settings(plane.address, tmp_path, max_concurrent_steps=1)):
        link = await plane.meet()
        keys: list[pb.StepKey] = []
        for step in (1, 2):
            await link.next("credit")
            keys.append(link.assign(assign(step_key(step))))
            await link.result()
        link.inspect(keys[0])
        await link.state()
        assert link.waiting("credit") == 0
        link.recorded(keys[0])
        await link.next("credit")


async def test_a_step_that_is_assigned_twice_executes_once_and_is_reported_again(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        first = await link.result()
        link.assign(assign())
        assert await link.result() == first
        assert len(actor.executed) == 1


async def test_an_assign_of_what_runs_is_answered_by_its_state(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        running = await actor.next()
        link.assign(assign(step_key(epoch=2)))
        state = await link.state()
        assert state.state == pb.HELD_STATE_RUNNING
        assert state.key.fence.epoch == 2
        actor.let(running)
        assert (await link.result()).key.fence.epoch == 2
        assert len(actor.executed) == 1


async def test_what_is_recorded_is_let_go_and_its_key_never_executes_again(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        await link.result()
        link.recorded(key)
        link.assign(assign())
        assert (await link.state()).state == pb.HELD_STATE_RELEASED
        assert len(actor.executed) == 1


async def test_reports_on_every_new_stream_until_recorded(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        first = await link.result()
        link.close()
        for _ in range(2):
            link = await plane.accept()
            hello = await link.hello()
            assert [(held.key, held.state) for held in hello.held] == [(key, pb.HELD_STATE_DONE)]
            assert link.waiting("step_result") == 0
            link.welcome()
            assert await link.result() == first
            link.close(Unavailable("RESTARTING", "back in a moment"))
        link = await plane.meet()
        link.recorded(key)
        link.inspect(key)
        assert (await link.state()).state == pb.HELD_STATE_RELEASED
        link.close()
        assert not (await (await plane.accept()).hello()).held


async def test_the_end_of_a_stream_does_not_stop_what_runs(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        running = await actor.next()
        link.close()
        link = await plane.accept()
        hello = await link.hello()
        assert [(held.key, held.state) for held in hello.held] == [(key, pb.HELD_STATE_RUNNING)]
        link.welcome()
        actor.let(running)
        assert (await link.result()).outcome.status == OK


async def test_what_waits_its_turn_is_forgotten_with_its_stream_and_can_be_assigned_again(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)):
        link = await plane.meet()
        first, waiting = step_key(1), step_key(2)
        link.assign(assign(first))
        running = await actor.next()
        link.assign(assign(waiting))
        link.inspect(waiting)
        assert (await link.state()).state == pb.HELD_STATE_RUNNING
        link.close()
        link = await plane.accept()
        assert [held.key for held in (await link.hello()).held] == [first]
        link.welcome()
        actor.let(running)
        await link.result()
        link.inspect(waiting)
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        link.assign(assign(waiting))
        actor.let(await actor.next())
        assert (await link.result()).key == waiting
        assert len(actor.executed) == 2


async def test_an_action_whose_digest_is_another_is_refused_for_good(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        altered = assign(step_key(), noop(b"altered"))
        altered.action_digest = assign(step_key(), noop(b"meant")).action_digest
        link.assign(altered)
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect, outcome.reason) == (REFUSED, NONE, "DIGEST_MISMATCH")
        link.assign(assign(step_key(), noop(b"meant")))
        assert (await link.result()).outcome.reason == "DIGEST_MISMATCH"
        assert not actor.executed


async def test_a_key_that_is_known_with_another_action_is_refused_as_unknown(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(), noop(b"one")))
        ran = await link.result()
        link.assign(assign(step_key(), noop(b"other")))
        refused = await link.result()
        assert (refused.outcome.status, refused.outcome.effect) == (REFUSED, UNKNOWN)
        assert refused.action_digest == ran.action_digest
        assert len(actor.executed) == 1


async def test_a_key_that_runs_another_action_is_refused_as_unknown(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(), noop(b"one")))
        running = await actor.next()
        link.assign(assign(step_key(), noop(b"other")))
        assert (await link.result()).outcome.effect == UNKNOWN
        actor.let(running)
        assert (await link.result()).outcome.status == OK


async def test_an_overtaken_owner_gets_no_result_and_executes_nothing(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(1, epoch=5)))
        await link.result()
        link.assign(assign(step_key(2, epoch=4)))
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        assert [execution.step_id for execution in actor.executed] == [ulid(1)]
        link.assign(assign(step_key(2, epoch=5)))
        assert (await link.result()).outcome.status == OK


async def test_a_restored_log_outranks_every_epoch_before_it(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(1, epoch=1, generation=1)))
        await link.result()
        link.assign(assign(step_key(2, epoch=9, generation=0)))
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN


async def test_inspecting_binds_the_fence_before_anything_has_begun(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.inspect(step_key(1, epoch=2))
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        link.assign(assign(step_key(1, epoch=1)))
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        assert not actor.executed


async def test_what_waits_its_turn_runs_for_the_owner_that_asked_last(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=1)):
        link = await plane.meet()
        link.assign(assign(step_key(1)))
        link.assign(assign(step_key(2)))
        running = await actor.next()
        link.inspect(step_key(2, epoch=2))
        state = await link.state()
        assert (state.state, state.key.fence.epoch) == (pb.HELD_STATE_RUNNING, 2)
        actor.let(running)
        await link.result()
        actor.let(await actor.next())
        assert (await link.result()).key == step_key(2, epoch=2)


async def test_an_attempt_that_a_later_one_has_overtaken_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(1, attempt=2)))
        await link.result()
        link.assign(assign(step_key(1, attempt=1)))
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect, outcome.reason) == (REFUSED, NONE, "STALE_ATTEMPT")
        assert [execution.attempt for execution in actor.executed] == [2]


async def test_an_action_of_another_kind_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        browse = Action(effect_class=READ, browser=BrowserAction(session_id="s", reload=ReloadAction()))
        batch = Action(effect_class=READ, batch=ActionBatch(actions=[noop(), browse]))
        for step, action in enumerate((browse, batch), start=1):
            link.assign(assign(step_key(step), action))
            outcome = (await link.result()).outcome
            assert (outcome.status, outcome.reason) == (REFUSED, "UNSUPPORTED_ACTION")
            assert "browser.reload" in outcome.message


async def test_an_assignment_that_breaks_its_contract_is_refused(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(), noop(effect_class=effect_pb2.EFFECT_CLASS_UNSPECIFIED)))
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.reason) == (REFUSED, "INVALID_ACTION")
        assert "effect_class" in outcome.message


async def test_nothing_begins_after_its_deadline(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        late, early = assign(step_key(1)), assign(step_key(2))
        late.deadline.FromMilliseconds(SystemClock().now_ms() - 1)
        early.deadline.FromMilliseconds(SystemClock().now_ms() + 60_000)
        link.assign(late)
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect, outcome.reason) == (REFUSED, NONE, "DEADLINE_PASSED")
        link.assign(early)
        running = await actor.next()
        assert running.step_id == ulid(2)
        assert running.deadline is not None
        assert 50 < running.deadline - SystemClock().monotonic() <= 60


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


async def test_every_joint_of_a_steps_life_is_passed_once_and_in_order(
    plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[tuple[Joint, AttemptKey, int]] = []

    class Noted:
        def reach(self, joint: Joint, key: AttemptKey, effect_class: int = 0) -> None:
            passed.append((joint, key, effect_class))

    def noted(_: str) -> Noted:
        return Noted()

    monkeypatch.setattr(worker_module, "joints_at", noted)
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        link.recorded((await link.result()).key)
        link.inspect(key)
        assert (await link.state()).state == pb.HELD_STATE_RELEASED
    known = AttemptKey(key.run_id, key.step_id, key.attempt)
    assert passed == [(joint, known, effect_pb2.EFFECT_CLASS_ONCE if joint is Joint.ASSIGNED else 0) for joint in Joint]


async def test_a_refused_result_of_what_is_unknown_or_runs_changes_nothing(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        running = await actor.next()
        for refused in (key, step_key(9)):
            link.send(pb.ControlResponse(result_refused=pb.ResultRefused(key=refused)))
        link.inspect(step_key(9))
        assert (await link.state()).state == pb.HELD_STATE_NEVER_BEGUN
        actor.let(running)
        assert (await link.result()).outcome.status == OK


async def test_a_frame_about_no_valid_key_is_left_unanswered(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        nobody = pb.StepKey(run_id="nobody", step_id="nothing", attempt=1)
        link.assign(assign(nobody))
        link.cancel(nobody)
        link.inspect(nobody)
        link.assign(assign())
        actor.let(await actor.next())
        assert (await link.result()).key == step_key()
        assert (link.waiting("step_state"), link.waiting("step_result")) == (0, 0)
        assert len(actor.executed) == 1


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


@pytest.mark.parametrize(("effect_class", "effect"), [(READ, NONE), (effect_pb2.EFFECT_CLASS_PROBEABLE, UNKNOWN)])
async def test_what_an_executor_raises_is_a_failure_with_the_effect_that_is_known(
    plane: ControlPlane,
    tmp_path: Path,
    actor: Actor,
    effect_class: effect_pb2.EffectClass.ValueType,
    effect: effect_pb2.Effect.ValueType,
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign(step_key(), noop(effect_class=effect_class)))
        actor.fail(await actor.next(), RuntimeError("the page is gone"))
        outcome = (await link.result()).outcome
        assert (outcome.status, outcome.effect) == (action_pb2.OUTCOME_STATUS_FAILED, effect)
        assert outcome.reason == "WORKER_ERROR"
        assert "the page is gone" in outcome.message


async def test_a_result_that_nobody_could_receive_becomes_a_failure(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        huge, broken = done(), done()
        huge.noop.payload = bytes(5 << 20)
        broken.reason = "R" * 100
        for step, (outcome, reason) in enumerate([(huge, "RESULT_TOO_LARGE"), (broken, "INVALID_RESULT")], start=1):
            link.assign(assign(step_key(step)))
            actor.let(await actor.next(), outcome)
            reported = (await link.result()).outcome
            assert (reported.status, reported.effect) == (action_pb2.OUTCOME_STATUS_FAILED, DONE)
            assert reported.reason == reason


async def test_steps_of_one_session_run_one_at_a_time_in_the_order_of_arrival(
    plane: ControlPlane, tmp_path: Path
) -> None:
    actor = Actor(kind="browser", actions=("browser.reload/1",))
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()

        def reload(session: str) -> Action:
            return Action(effect_class=READ, browser=BrowserAction(session_id=session, reload=ReloadAction()))

        for step, session in enumerate(("one", "one", "two", "one"), start=1):
            link.assign(assign(step_key(step), reload(session)))
        first, other = await actor.next(), await actor.next()
        assert {first.step_id, other.step_id} == {ulid(1), ulid(3)}
        actor.let(other)
        assert (await link.result()).key.step_id == ulid(3)
        assert actor.started.empty()
        actor.let(first)
        second = await actor.next()
        assert second.step_id == ulid(2)
        actor.let(second)
        assert (await actor.next()).step_id == ulid(4)


async def test_no_more_steps_run_at_once_than_it_can_do(plane: ControlPlane, tmp_path: Path, actor: Actor) -> None:
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=2)):
        link = await plane.meet()
        for step in (1, 2, 3):
            link.assign(assign(step_key(step)))
        first, _ = await actor.next(), await actor.next()
        link.inspect(step_key(3))
        await link.state()
        assert actor.started.empty()
        actor.let(first)
        assert (await actor.next()).step_id == ulid(3)


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


async def test_welcome_names_runs_that_ended_meanwhile(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.assign(assign())
        await link.result()
        link.close()
        link = await plane.accept()
        await link.hello()
        link.welcome(ended_runs=[ulid(1)])
        link.assign(assign())
        assert (await link.result()).outcome.reason == "RUN_ENDED"
        assert await actor.ended_runs.get() == ulid(1)


@pytest.mark.parametrize(
    "failure",
    [
        Conflict("SUPERSEDED", "another stream took over"),
        Denied("NOT_A_WORKER", "this token may not work"),
        Precondition("TOO_OLD", "update the worker"),
    ],
)
async def test_a_worker_that_will_never_be_taken_ends_with_what_it_was_told(
    plane: ControlPlane, tmp_path: Path, failure: SkyError
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)) as worker:
        link = await plane.meet()
        link.close(failure)
        with pytest.raises(type(failure), match=failure.message):
            await worker


@pytest.mark.parametrize(
    "failure",
    [
        Unauthenticated("TOKEN_EXPIRED", "the token has expired"),
        Conflict("STALE_OWNER", "another node was faster"),
        Internal("BUG", "something broke"),
    ],
)
async def test_whatever_else_ends_a_stream_is_dialled_again(
    plane: ControlPlane, tmp_path: Path, failure: SkyError
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        (await plane.meet()).close(failure)
        link = await plane.meet()
        link.assign(assign())
        assert (await link.result()).outcome.status == OK


async def test_a_token_is_read_anew_for_every_stream(plane: ControlPlane, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with working(Immediate(), settings(plane.address, tmp_path, token_file=token)):
        link = await plane.meet()
        token.write_text("new")
        link.close(Unauthenticated("TOKEN_EXPIRED", "the token has expired"))
        assert (await plane.meet()).metadata["authorization"] == "Bearer new"


async def test_dials_again_when_the_control_plane_comes_back(tmp_path: Path) -> None:
    async with control_plane() as plane:
        address = plane.address
    async with working(Immediate(), settings(address, tmp_path)), control_plane(address) as plane:
        link = await plane.meet()
        link.assign(assign())
        assert (await link.result()).outcome.status == OK


async def test_a_run_of_which_only_keys_are_left_is_named_until_it_is_known_to_be_over(
    plane: ControlPlane, tmp_path: Path
) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        key = link.assign(assign())
        await link.result()
        link.recorded(key)
        link.inspect(key)
        await link.state()
        link.close()
        link = await plane.accept()
        hello = await link.hello()
        assert (list(hello.held), list(hello.capabilities.resident_runs)) == ([], [ulid(1)])
        link.welcome(ended_runs=[ulid(1)])
        link.assign(assign())
        assert (await link.result()).outcome.reason == "RUN_ENDED"
        link.close()
        assert not (await (await plane.accept()).hello()).capabilities.resident_runs


async def test_a_frame_whose_key_is_no_key_is_passed_over(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        broken = pb.StepKey(run_id="run", step_id="step", attempt=1)
        link.assign(assign(broken))
        link.cancel(broken)
        link.inspect(broken)
        link.assign(assign())
        assert (await link.result()).key == step_key()
        assert [execution.step_id for execution in actor.executed] == [ulid(1)]


async def test_a_frame_of_a_later_protocol_is_passed_over(plane: ControlPlane, tmp_path: Path) -> None:
    async with working(Immediate(), settings(plane.address, tmp_path)):
        link = await plane.meet()
        link.send(pb.ControlResponse())
        link.assign(assign())
        assert (await link.result()).outcome.status == OK


async def test_many_steps_at_once_are_each_reported_once(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=64)):
        link = await plane.meet()
        keys = [link.assign(assign(step_key(step))) for step in range(1, 201)]
        results = [(await link.result()).key.step_id for _ in keys]
        assert sorted(results) == [key.step_id for key in keys]
        assert len(actor.executed) == 200
