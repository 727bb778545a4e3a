from __future__ import annotations

import pytest

from control.core.moments import ms_of
from control.core.retry import Failure, after_failure
from control.core.run import RunFold
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import failed, group, lost, step

NOW = 5_000_000
STUCK = Failure("TIMEOUT", "it hangs")
GONE = Failure("BROWSER_STALE", "the page is another", page_is_gone=True)
ONCE = eff.EFFECT_CLASS_ONCE


def refused(reason: str) -> act.Outcome:
    return act.Outcome(status=act.OUTCOME_STATUS_REFUSED, effect=eff.EFFECT_NONE, reason=reason)


class World:
    """A plan, and attempts at its steps that failed as told."""

    def __init__(self, *nodes: plan.PlanNode) -> None:
        self.folded = RunFold()
        self.tell(ev.EventBody(run_created=ev.RunCreated()))
        self.tell(ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes)))

    def node(self, node_id: str) -> st.NodeRecord:
        return self.folded.node(node_id)

    def tried(self, node_id: str, *outcomes: act.Outcome) -> st.NodeRecord:
        for outcome in outcomes:
            number = len(self.node(node_id).attempts) + 1
            effect = self.node(node_id).node.step.action.effect_class
            intended = ev.StepIntended(step_id=node_id, attempt=number, effect_class=effect)
            self.tell(ev.EventBody(step_intended=intended))
            self.tell(ev.EventBody(step_finished=ev.StepFinished(step_id=node_id, attempt=number, outcome=outcome)))
        return self.node(node_id)

    def succeeded(self, node_id: str) -> None:
        self.tried(node_id, act.Outcome(status=act.OUTCOME_STATUS_OK))
        validated = ev.StepValidated(step_id=node_id, attempt=1, holds=plan.HOLDS_YES)
        self.tell(ev.EventBody(step_validated=validated))

    def restarted(self, node_id: str, times: int) -> None:
        self.tell(ev.EventBody(group_restarted=ev.GroupRestarted(node_id=node_id, restart=times)))

    def after(self, node_id: str, failure: Failure) -> ev.EventBody:
        return after_failure(self.folded, self.node(node_id), failure, NOW)

    def tell(self, body: ev.EventBody) -> None:
        self.folded.apply(ev.RunEvent(run_id="R", seq=self.folded.state.seq + 1, epoch=1, body=body))


def _restartable(max_restarts: int = 0) -> plan.PlanNode:
    return group("G", restart_from_first=True, max_restarts=max_restarts)


def test_a_step_is_tried_again_after_a_delay_and_given_up_after_the_second_failure() -> None:
    world = World(step("S"))
    world.tried("S", failed(br.BROWSER_STATUS_TIMEOUT))
    again = world.after("S", STUCK).step_retried
    assert (again.step_id, again.attempt, again.strategy, again.reason) == ("S", 1, "again", "it hangs")
    assert ms_of(again.not_before) == NOW + 500
    world.tried("S", failed(br.BROWSER_STATUS_TIMEOUT))
    settled = world.after("S", STUCK).node_settled
    assert (settled.node_id, settled.state) == ("S", ev.NODE_STATE_FAILED)
    assert (settled.signature, settled.reason) == ("TIMEOUT", "it hangs")


def test_a_step_may_say_how_often_it_is_tried() -> None:
    node = step("S")
    node.step.max_attempts = 4
    world = World(node)
    world.tried("S", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 3)
    assert ms_of(world.after("S", STUCK).step_retried.not_before) == NOW + 2_000
    world.tried("S", failed(br.BROWSER_STATUS_TIMEOUT))
    assert world.after("S", STUCK).HasField("node_settled")


def test_no_delay_is_longer_than_eight_seconds() -> None:
    node = step("S")
    node.step.max_attempts = 40
    world = World(node)
    world.tried("S", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 20)
    assert ms_of(world.after("S", STUCK).step_retried.not_before) == NOW + 8_000


@pytest.mark.parametrize(("denied", "state"), [(True, ev.NODE_STATE_DENIED), (False, ev.NODE_STATE_FAILED)])
def test_what_is_denied_or_hopeless_is_not_tried_again(*, denied: bool, state: ev.NodeState.ValueType) -> None:
    world = World(_restartable(), step("S", "G"))
    world.tried("S", failed(br.BROWSER_STATUS_TIMEOUT))
    settled = world.after("S", Failure("X", "no", page_is_gone=True, denied=denied, hopeless=not denied)).node_settled
    assert settled.state == state


def test_a_step_whose_page_is_gone_starts_its_group_again_at_once() -> None:
    world = World(_restartable(), step("S", "G"))
    world.tried("S", failed(br.BROWSER_STATUS_STALE))
    again = world.after("S", GONE).group_restarted
    assert (again.node_id, again.restart, again.reason) == ("G", 1, "the page is another")
    assert ms_of(again.not_before) == NOW + 250


def test_a_step_that_stays_stuck_starts_its_group_again() -> None:
    world = World(_restartable(), step("S", "G"))
    world.tried("S", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 2)
    assert world.after("S", STUCK).group_restarted.restart == 1


def test_a_group_starts_again_three_times_unless_it_says_otherwise() -> None:
    world = World(_restartable(), step("S", "G"))
    world.restarted("G", 2)
    assert ms_of(world.after("S", GONE).group_restarted.not_before) == NOW + 1_000
    world.restarted("G", 3)
    assert world.after("S", GONE).HasField("node_settled")
    once = World(_restartable(max_restarts=1), step("S", "G"))
    once.restarted("G", 1)
    assert once.after("S", GONE).HasField("node_settled")


def test_tries_count_anew_after_the_group_started_again() -> None:
    world = World(_restartable(), step("S", "G"))
    world.tried("S", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 2)
    world.restarted("G", 1)
    world.tried("S", failed(br.BROWSER_STATUS_TIMEOUT))
    assert world.after("S", STUCK).HasField("step_retried")


def test_a_page_that_is_gone_without_a_group_that_starts_again_is_tried_on_its_own() -> None:
    world = World(group("G"), step("S", "G"))
    world.tried("S", failed(br.BROWSER_STATUS_STALE))
    assert world.after("S", GONE).HasField("step_retried")


def test_the_group_that_starts_again_may_be_further_up() -> None:
    world = World(_restartable(), group("H", "G"), step("S", "H"))
    assert world.after("S", GONE).group_restarted.node_id == "G"


@pytest.mark.parametrize("effect", [ONCE, eff.EFFECT_CLASS_PROBEABLE])
def test_a_group_does_not_start_again_once_something_in_it_must_not_happen_twice(
    effect: eff.EffectClass.ValueType,
) -> None:
    world = World(_restartable(), step("post", "G", effect), step("look", "G"))
    world.succeeded("post")
    world.tried("look", *[failed(br.BROWSER_STATUS_STALE)] * 2)
    assert world.after("look", GONE).HasField("node_settled")


def test_a_post_that_has_not_begun_does_not_keep_its_group_from_starting_again() -> None:
    world = World(_restartable(), step("look", "G"), step("post", "G", ONCE))
    assert world.after("look", GONE).HasField("group_restarted")
    world.tried("post", failed(br.BROWSER_STATUS_NOT_FOUND))
    assert world.after("post", GONE).HasField("group_restarted")


def test_a_probe_never_starts_the_group_of_the_step_that_it_asks_about_again() -> None:
    probe = step("probe", "G")
    probe.step.probe_of = "S"
    world = World(_restartable(), step("S", "G", eff.EFFECT_CLASS_PROBEABLE), probe)
    world.tried("probe", lost())
    assert world.after("probe", Failure.of(lost())).step_retried.step_id == "probe"


def test_a_step_that_nothing_but_interrupts_is_given_up() -> None:
    world, tries = World(step("S")), 1
    world.tried("S", refused("DEADLINE_PASSED"))
    while not world.after("S", Failure.of(refused("DEADLINE_PASSED"))).HasField("node_settled"):
        world.tried("S", refused("DEADLINE_PASSED"))
        tries += 1
        assert tries <= 20
    assert tries == 12


def test_interruptions_are_no_tries_and_are_bounded() -> None:
    world = World(step("S"))
    interrupted = Failure.of(lost())
    for _ in range(10):
        world.tried("S", lost())
        assert world.after("S", interrupted).HasField("step_retried")
    world.tried("S", lost())
    world.tried("S", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 2)
    assert world.after("S", interrupted).HasField("node_settled")


def test_a_worker_that_dies_is_not_counted_against_the_groups_restarts() -> None:
    world = World(_restartable(), step("S", "G"))
    world.tried("S", lost())
    again = world.after("S", Failure.of(lost())).group_restarted
    assert again.restart == 0
    assert ms_of(again.not_before) == NOW + 250
    world.tried("S", *[lost()] * 10)
    assert world.after("S", Failure.of(lost())).group_restarted.restart == 1


def test_a_withdrawn_attempt_is_no_try() -> None:
    world = World(step("S"))
    world.tried("S", failed(br.BROWSER_STATUS_TIMEOUT))
    world.tell(ev.EventBody(step_intended=ev.StepIntended(step_id="S", attempt=2)))
    world.tell(ev.EventBody(step_withdrawn=ev.StepWithdrawn(step_id="S", attempt=2)))
    assert world.after("S", STUCK).HasField("step_retried")


@pytest.mark.parametrize(
    ("status", "gone"),
    [
        (br.BROWSER_STATUS_STALE, True),
        (br.BROWSER_STATUS_NAVIGATED, True),
        (br.BROWSER_STATUS_CRASHED, True),
        (br.BROWSER_STATUS_NOT_FOUND, True),
        (br.BROWSER_STATUS_UNEXPECTED_STATE, True),
        (br.BROWSER_STATUS_TIMEOUT, False),
    ],
)
def test_some_failures_say_that_the_page_is_gone(status: br.BrowserStatus.ValueType, *, gone: bool) -> None:
    failure = Failure.of(failed(status))
    assert failure == Failure("FAILED", "it failed", page_is_gone=gone)


def test_a_failure_is_named_by_its_reason() -> None:
    outcome = failed(br.BROWSER_STATUS_TIMEOUT)
    outcome.reason, outcome.message = "BROWSER_TIMEOUT", ""
    assert Failure.of(outcome) == Failure("BROWSER_TIMEOUT", "the worker gave no reason")


def test_a_lost_attempt_is_an_interruption_that_took_the_page_along() -> None:
    assert Failure.of(lost()) == Failure("LOST", "the worker died", page_is_gone=True, interrupted=True)


@pytest.mark.parametrize("reason", ["DIGEST_MISMATCH", "INVALID_ACTION", "UNSUPPORTED_ACTION", "RUN_ENDED"])
def test_some_refusals_are_for_good(reason: str) -> None:
    failure = Failure.of(refused(reason))
    assert (failure.hopeless, failure.interrupted) == (True, False)


@pytest.mark.parametrize("reason", ["LEASE_ENDED", "DEADLINE_PASSED", "DRAINING", "STALE_ATTEMPT"])
def test_other_refusals_are_interruptions(reason: str) -> None:
    failure = Failure.of(refused(reason))
    assert (failure.hopeless, failure.interrupted, failure.page_is_gone) == (False, True, False)


def test_a_cancelled_attempt_of_a_run_that_goes_on_is_an_interruption() -> None:
    assert Failure.of(act.Outcome(status=act.OUTCOME_STATUS_CANCELLED)).interrupted


def test_what_policy_refuses_inside_the_worker_is_denied() -> None:
    assert Failure.of(failed(br.BROWSER_STATUS_POLICY_DENIED)).denied


def told(world: World, **policy: int) -> None:
    """A person sets how the run retries; delays in milliseconds."""
    retry = cmd.RetryPolicy()
    for name, value in policy.items():
        if name.endswith("delay"):
            getattr(retry, name).FromMilliseconds(value)
        else:
            setattr(retry, name, value)
    world.tell(ev.EventBody(command_applied=ev.CommandApplied(command=cmd.Command(retry=retry))))


def test_a_person_sets_how_often_a_step_is_tried_and_the_plan_no_longer_counts() -> None:
    world = World(step("look"))
    world.tried("look", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 2)
    assert world.after("look", STUCK).HasField("node_settled")
    told(world, max_attempts=4)
    assert world.after("look", STUCK).HasField("step_retried")
    world.tried("look", *[failed(br.BROWSER_STATUS_TIMEOUT)] * 2)
    assert world.after("look", STUCK).HasField("node_settled")
    told(world)
    assert world.after("look", STUCK).HasField("node_settled")


def test_a_person_sets_how_often_a_group_starts_again_also_never() -> None:
    world = World(group("g", restart_from_first=True), step("look", "g"))
    world.tried("look", failed(br.BROWSER_STATUS_STALE))
    assert world.after("look", GONE).HasField("group_restarted")
    told(world, max_restarts=0)
    assert world.after("look", GONE).HasField("node_settled")


def test_a_person_sets_the_delays_and_none_is_longer_than_the_longest() -> None:
    world = World(step("look"))
    world.tried("look", failed(br.BROWSER_STATUS_TIMEOUT))
    told(world, first_delay=1_000, longest_delay=60_000)
    assert ms_of(world.after("look", STUCK).step_retried.not_before) == NOW + 2_000
    told(world, first_delay=30_000, longest_delay=20_000)
    assert ms_of(world.after("look", STUCK).step_retried.not_before) == NOW + 20_000
    told(world, first_delay=0)
    assert ms_of(world.after("look", STUCK).step_retried.not_before) == NOW


def test_however_it_is_set_what_must_not_happen_twice_is_not_repeated_by_its_group() -> None:
    world = World(group("g", restart_from_first=True), step("send", "g", ONCE), step("look", "g"))
    told(world, max_restarts=20, max_attempts=10)
    world.succeeded("send")
    world.tried("look", failed(br.BROWSER_STATUS_STALE))
    assert not world.after("look", GONE).HasField("group_restarted")
