"""What follows an outcome, seen through whole runs against a scripted world."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from control.core.check import settle_time_ms
from control.core.moves import Wait
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Application, Simulation, failed, group, lost, ok, records_plan, step

ONCE, PROBEABLE, READ = eff.EFFECT_CLASS_ONCE, eff.EFFECT_CLASS_PROBEABLE, eff.EFFECT_CLASS_READ
WAITING = ev.RUN_PHASE_WAITING
READ_BACK = plan.Postcondition(fields_read_back=plan.FieldsReadBack())


def _probes(simulation: Simulation) -> list[st.NodeRecord]:
    return [node for node in simulation.folded.state.nodes if node.node.step.probe_of]


class Flaky:
    """An application whose probes come out as told, then honestly."""

    def __init__(self, application: Application, *probes: act.Outcome) -> None:
        self.application, self.probes = application, list(probes)

    def __call__(self, record: st.NodeRecord, attempt: int) -> act.Outcome:
        if record.node.step.probe_of and self.probes:
            return self.probes.pop(0)
        return self.application(record, attempt)


@pytest.mark.parametrize("deaths", [1, 2, 5])
def test_a_worker_that_dies_while_it_looks_makes_nothing_happen_twice(deaths: int) -> None:
    application = Application()
    simulation = Simulation(records_plan("A"), Flaky(application, *[lost()] * deaths))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["A"]


def test_an_application_that_cannot_be_asked_leaves_the_save_to_a_person() -> None:
    application = Application()
    simulation = Simulation(records_plan("A"), Flaky(application, *[failed(br.BROWSER_STATUS_TIMEOUT)] * 2))
    assert simulation.run() == WAITING
    save = simulation.step("save A")
    assert save.state == ev.NODE_STATE_UNCERTAIN
    assert save.reason == "'save A' on browser-1: no outcome; the application could not be asked"
    assert application.saved == ["A"]


def test_an_answer_is_checked_at_once_and_asked_again_after_the_settle_time() -> None:
    simulation = Simulation(records_plan("A"), Application(saves=["false"]))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    save = simulation.step("save A")
    first, second = _probes(simulation)[:2]
    ended_ms = save.attempts[0].finish_time.ToMilliseconds()
    assert first.attempts[0].intend_time.ToMilliseconds() < ended_ms + 2_000
    assert second.attempts[0].intend_time.ToMilliseconds() >= ended_ms + 2_000
    assert first.node.title == "Ask the application again"
    assert first.planner == "validator"
    assert first.node.parent_id == "A"


def test_a_step_may_settle_slower() -> None:
    nodes = records_plan("A")
    nodes[-1].step.settle.FromMilliseconds(7_500)
    simulation = Simulation(nodes, Application(saves=["lost before"]))
    simulation.run()
    save = simulation.step("save A")
    assert settle_time_ms(save) == save.attempts[-1].finish_time.ToMilliseconds() + 7_500
    lost_at = save.attempts[0].finish_time.ToMilliseconds()
    assert _probes(simulation)[0].attempts[0].intend_time.ToMilliseconds() >= lost_at + 7_500


def test_a_probe_sees_what_it_is_asked_for_and_only_that_ends_the_check() -> None:
    simulation = Simulation(records_plan("A"), Application())
    simulation.run()
    save = simulation.step("save A")
    (finding,) = save.attempts[0].findings
    assert finding.probe_step_id == _probes(simulation)[0].node.node_id
    assert save.attempts[0].holds == plan.HOLDS_YES


@pytest.mark.parametrize("effect", [ONCE, PROBEABLE])
def test_what_certainly_did_not_happen_is_tried_again_without_asking(effect: eff.EffectClass.ValueType) -> None:
    outcomes = [failed(br.BROWSER_STATUS_TIMEOUT), ok()]
    simulation = Simulation([step("post", "", effect)], lambda _record, _attempt: outcomes.pop(0))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert "step_validated" in simulation.kinds()
    assert len(simulation.step("post").attempts) == 2


@pytest.mark.parametrize("status", [act.OUTCOME_STATUS_OK, act.OUTCOME_STATUS_FAILED, act.OUTCOME_STATUS_CANCELLED])
def test_a_post_of_which_nobody_knows_is_a_persons_whatever_it_ended_as(status: act.OutcomeStatus.ValueType) -> None:
    outcome = act.Outcome(status=status, effect=eff.EFFECT_UNKNOWN, message="cut off")
    simulation = Simulation([step("post", "", ONCE)], lambda _record, _attempt: outcome)
    assert simulation.run() == WAITING
    known = simulation.step("post").reason
    assert known == "'post' on browser-1: cut off; only a person can tell whether it happened"


def test_a_post_whose_claim_fails_is_given_up_and_not_sent_again() -> None:
    posted = plan.Postcondition(http_status=plan.HttpStatus(method="POST", min=200, max=399))
    answer = ok(exchanges=[br.HttpExchange(method="POST", url="u", status=500)])
    simulation = Simulation([step("post", "", ONCE, posted)], lambda _record, _attempt: answer)
    assert simulation.run() == ev.RUN_PHASE_FAILED
    post = simulation.step("post")
    assert (len(post.attempts), post.signature, post.reason) == (1, "FALSE_SUCCESS", "POST u was answered with 500")


def test_a_harmless_step_that_proves_nothing_is_tried_again_and_not_called_a_false_success() -> None:
    simulation = Simulation([step("fill", "", READ, READ_BACK)], lambda _record, _attempt: ok())
    assert simulation.run() == ev.RUN_PHASE_FAILED
    fill = simulation.step("fill")
    assert (len(fill.attempts), fill.signature, fill.reason) == (2, "UNVERIFIED", "no field was read back")
    assert simulation.folded.state.counts.false_successes == 0


def test_a_save_that_got_lost_and_is_not_there_has_no_effect() -> None:
    nodes = records_plan("A")
    nodes[1].group.max_restarts = 1
    simulation = Simulation(nodes, Application(saves=["lost before"] * 9))
    simulation.run()
    assert simulation.step("save A").signature == "NO_EFFECT"


def test_every_page_that_a_claim_names_is_asked() -> None:
    nodes = records_plan("A")
    other = plan.Postcondition(listed=plan.Listed(url="http://app/?q=B", key="B"))
    nodes[-1].step.postconditions.append(other)
    application = Application()
    simulation = Simulation(nodes, application)
    simulation.run()
    asked = {probe.node.step.action.browser.extract.url for probe in _probes(simulation)}
    assert asked == {"http://app/?q=A", "http://app/?q=B"}
    first, second = simulation.step("save A").attempts[-1].findings
    assert (first.holds, second.holds) == (plan.HOLDS_YES, plan.HOLDS_NO)
    assert application.saved == ["A"]


def test_a_probe_that_policy_asks_about_parks_its_step_until_the_person_has_answered() -> None:
    application = Application()

    def ask_about_probes(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.step.probe_of else pol.VERDICT_ALLOW

    simulation = Simulation(records_plan("A"), application, ask_about_probes)
    assert simulation.run() == WAITING
    simulation.answer(ev.APPROVAL_STATE_GRANTED)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["A"]


def test_a_probe_that_a_person_denies_leaves_its_step_uncertain() -> None:
    def ask_about_probes(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.step.probe_of else pol.VERDICT_ALLOW

    simulation = Simulation(records_plan("A"), Application(), ask_about_probes)
    simulation.run()
    simulation.answer(ev.APPROVAL_STATE_DENIED)
    assert simulation.run() == WAITING
    assert simulation.step("save A").state == ev.NODE_STATE_UNCERTAIN


def test_a_group_of_a_control_step_and_another_does_not_start_again_for_ever() -> None:
    nodes = [group("G", restart_from_first=True), step("table", "G"), step("print", "G")]
    nodes[1].step.ClearField("action")
    nodes[1].step.control = plan.CONTROL_STEP_OUTCOME_TABLE
    simulation = Simulation(nodes, lambda _record, _attempt: ok())
    assert simulation.run(limit=30) == ev.RUN_PHASE_SUCCEEDED


def test_a_group_within_a_group_that_starts_again_does_not_start_again_for_ever() -> None:
    nodes = [group("G", restart_from_first=True), group("H", "G"), step("a", "H"), step("b", "G")]
    simulation = Simulation(nodes, lambda _record, _attempt: ok())
    assert simulation.run(limit=30) == ev.RUN_PHASE_SUCCEEDED
    assert "group_restarted" not in simulation.kinds()


def test_nothing_begins_while_a_step_waits_for_its_moment() -> None:
    simulation = Simulation([step("look")], lambda _record, _attempt: failed(br.BROWSER_STATUS_TIMEOUT))
    while "step_retried" not in simulation.kinds():
        simulation.run_one()
    until = simulation.step("look").not_before.ToMilliseconds()
    assert simulation.move() == Wait(until)
    simulation.now_ms = until
    assert simulation.move() != Wait(until)


def test_a_parked_log_lets_nothing_happen_but_a_cancellation() -> None:
    simulation = Simulation([step("look")], lambda _record, _attempt: ok())
    simulation.append(ev.EventBody(run_blocked=ev.RunBlocked(reason="LOG_BEHIND")))
    assert simulation.move() == Wait()
    simulation.folded.state.cancel_wanted = True
    assert simulation.run() == ev.RUN_PHASE_CANCELLED
    assert simulation.move() == Wait()


def test_after_a_persons_no_a_post_is_filled_in_afresh() -> None:
    outcomes = {"save A": [lost()]}

    def world(record: st.NodeRecord, _attempt: int) -> act.Outcome:
        left = outcomes.get(record.node.title)
        return left.pop() if left else ok()

    nodes = [*records_plan("A")[:-1], step("save A", "A", ONCE)]
    simulation = Simulation(nodes, world)
    assert simulation.run() == WAITING
    resolved = ev.UncertaintyResolved(step_id="save A", attempt=1, effect=eff.EFFECT_NONE, source="person")
    simulation.append(ev.EventBody(uncertainty_resolved=resolved))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert [len(simulation.step(f"{verb} A").attempts) for verb in ("open", "fill", "save")] == [2, 2, 2]


def test_filling_in_afresh_after_a_yes_costs_the_record_none_of_its_restarts() -> None:
    def ask(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.title == "save A" else pol.VERDICT_ALLOW

    simulation = Simulation(records_plan("A"), Application(), ask)
    simulation.run()
    simulation.answer(ev.APPROVAL_STATE_GRANTED)
    simulation.run()
    assert _restarts(simulation) == [(0, "approved: the form is filled in afresh")]


def test_a_record_that_was_parked_while_another_was_worked_on_is_filled_in_afresh() -> None:
    losses = [lost()]

    def world(record: st.NodeRecord, _attempt: int) -> act.Outcome:
        return losses.pop() if record.node.title == "save A" and losses else ok()

    nodes = [*records_plan("A")[:-1], step("save A", "A", ONCE), *records_plan("B")[1:-1]]
    simulation = Simulation(nodes, world)
    assert simulation.run() == WAITING
    resolved = ev.UncertaintyResolved(step_id="save A", attempt=1, effect=eff.EFFECT_NONE, source="person")
    simulation.append(ev.EventBody(uncertainty_resolved=resolved))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert _restarts(simulation) == [(0, "the page has moved on since")]


def _restarts(simulation: Simulation) -> list[tuple[int, str]]:
    told = [event.body.group_restarted for event in simulation.journal if event.body.HasField("group_restarted")]
    return [(restarted.restart, restarted.reason) for restarted in told]


@pytest.mark.parametrize(
    ("on_failure", "planned_again"), [(plan.ON_FAILURE_ABORT, False), (plan.ON_FAILURE_CONTINUE, True)]
)
def test_after_a_failure_nothing_more_is_planned_unless_the_group_may_fail(
    on_failure: plan.OnFailure.ValueType, *, planned_again: bool
) -> None:
    nodes = [group("G", on_failure=on_failure), step("look", "G")]
    simulation = Simulation(nodes, lambda _record, _attempt: failed(br.BROWSER_STATUS_TIMEOUT))
    simulation.append(ev.EventBody(plan_extended=ev.PlanExtended(nodes=nodes, more=True)))
    assert simulation.run() == ev.RUN_PHASE_FAILED
    assert (simulation.kinds().count("plan_extended") == 2) is planned_again


FATES = some.sampled_from(["fine", "lost after", "lost before", "refused", "stale", "timeout", "cancelled", "false"])
BAD = {
    "lost before": lost(),
    "lost after": lost(),
    "refused": act.Outcome(status=act.OUTCOME_STATUS_REFUSED, effect=eff.EFFECT_NONE, reason="LEASE_ENDED"),
    "stale": failed(br.BROWSER_STATUS_STALE),
    "timeout": failed(br.BROWSER_STATUS_TIMEOUT),
    "cancelled": act.Outcome(status=act.OUTCOME_STATUS_CANCELLED, effect=eff.EFFECT_UNKNOWN),
}


class Fate:
    """Every attempt at anything ends as drawn; what is done is done, whatever is reported."""

    def __init__(self, fates: list[str]) -> None:
        self.application, self.fates = Application(), fates

    def __call__(self, record: st.NodeRecord, attempt: int) -> act.Outcome:
        fate = self.fates.pop(0) if self.fates else "fine"
        if fate == "fine":
            return self.application(record, attempt)
        if fate == "lost after":
            self.application(record, attempt)
        return BAD.get(fate, ok())


@given(fates=some.lists(FATES, max_size=40), asked=some.booleans())
def test_whatever_becomes_of_whatever_attempt_nothing_is_saved_twice_and_the_run_comes_to_rest(
    *, fates: list[str], asked: bool
) -> None:
    def policy(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if asked and record.node.title == "save A" else pol.VERDICT_ALLOW

    fate = Fate(fates)
    simulation = Simulation(records_plan("A", "B"), fate, policy)
    phase = simulation.run()
    while phase == WAITING and simulation.folded.state.approvals[-1:]:
        if simulation.folded.state.approvals[-1].state != ev.APPROVAL_STATE_PENDING:
            break
        simulation.answer(ev.APPROVAL_STATE_GRANTED)
        phase = simulation.run()
    saved = fate.application.saved
    assert len(saved) == len(set(saved))
    assert phase in (ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED, WAITING)
    for key in "AB":
        if simulation.step(f"save {key}").state == ev.NODE_STATE_SUCCEEDED:
            assert key in saved


@given(some.lists(FATES, max_size=20))
def test_whatever_becomes_of_whatever_attempt_no_post_is_sent_twice(fates: list[str]) -> None:
    fate = Fate(fates)
    nodes = [*records_plan("A")[:-1], step("save A", "A", ONCE)]
    simulation = Simulation(nodes, fate)
    assert simulation.run() in (ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED, WAITING)
    assert len(fate.application.saved) <= 1
