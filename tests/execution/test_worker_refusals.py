"""What a worker refuses to begin: other actions, overtaken owners and attempts, what came too late."""

from __future__ import annotations

from pathlib import Path

from infra.clock import SystemClock
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action, ActionBatch
from skyagent.execution.v1.browser_pb2 import BrowserAction, ReloadAction
from tests.execution.actors import Actor, Immediate, settings, working
from tests.execution.control_plane import ControlPlane, assign, noop, step_key, ulid

REFUSED = action_pb2.OUTCOME_STATUS_REFUSED
OK = action_pb2.OUTCOME_STATUS_OK
NONE, UNKNOWN = effect_pb2.EFFECT_NONE, effect_pb2.EFFECT_UNKNOWN
READ = effect_pb2.EFFECT_CLASS_READ


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


async def test_how_long_an_attempt_may_wait_is_counted_by_the_worker_whatever_the_owners_clock_says(
    plane: ControlPlane, tmp_path: Path, actor: Actor
) -> None:
    async with working(actor, settings(plane.address, tmp_path)):
        link = await plane.meet()
        over, under = assign(step_key(1)), assign(step_key(2))
        over.deadline.FromMilliseconds(SystemClock().now_ms() + 3_600_000)
        over.time_left.FromMilliseconds(0)
        under.deadline.FromMilliseconds(SystemClock().now_ms() - 3_600_000)
        under.time_left.FromSeconds(60)
        link.assign(over)
        assert (await link.result()).outcome.reason == "DEADLINE_PASSED"
        link.assign(under)
        running = await actor.next()
        assert running.step_id == ulid(2)
        assert running.deadline is not None
        assert 50 < running.deadline - SystemClock().monotonic() <= 60


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
