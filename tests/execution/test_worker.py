"""What a worker says to a control plane that a test plays: who it is, how much it takes, what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from execution import session
from execution import worker as worker_module
from execution.attempts import AttemptKey
from execution.joints import Joint
from infra.clock import SystemClock
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action
from skyagent.execution.v1.browser_pb2 import BrowserAction, ReloadAction
from tests.execution.actors import Actor, Immediate, done, settings, working
from tests.execution.control_plane import ControlPlane, assign, noop, step_key, ulid

OK = action_pb2.OUTCOME_STATUS_OK
NONE, DONE, UNKNOWN = effect_pb2.EFFECT_NONE, effect_pb2.EFFECT_DONE, effect_pb2.EFFECT_UNKNOWN
READ = effect_pb2.EFFECT_CLASS_READ


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


async def test_many_steps_at_once_are_each_reported_once(plane: ControlPlane, tmp_path: Path) -> None:
    actor = Immediate()
    async with working(actor, settings(plane.address, tmp_path, max_concurrent_steps=64)):
        link = await plane.meet()
        keys = [link.assign(assign(step_key(step))) for step in range(1, 201)]
        results = [(await link.result()).key.step_id for _ in keys]
        assert sorted(results) == [key.step_id for key in keys]
        assert len(actor.executed) == 200
