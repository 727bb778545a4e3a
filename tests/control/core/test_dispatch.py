from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from control.core.run import RunFold, fold
from control.core.summary import state_digest
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Application, Simulation, failed, lost, ok, records_plan, step

SAVES = some.sampled_from(["saved", "lost after", "lost before", "false"])


def test_a_run_with_a_step_that_holds_succeeds() -> None:
    simulation = Simulation([step("look")], lambda _record, _attempt: ok())
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED


def test_a_save_that_the_application_does_not_show_is_caught_and_done_again() -> None:
    application = Application(saves=["false"])
    simulation = Simulation(records_plan("A"), application)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["A"]
    assert simulation.folded.state.counts.false_successes == 1


def test_a_save_whose_worker_died_after_it_is_not_done_again() -> None:
    application = Application(saves=["lost after"])
    simulation = Simulation(records_plan("A"), application)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["A"]
    assert len(simulation.step("save A").attempts) == 1


def test_a_negative_probe_counts_only_after_the_settle_time() -> None:
    simulation = Simulation(records_plan("A"), Application(saves=["lost before"]))
    simulation.run()
    probe = next(node for node in simulation.folded.state.nodes if node.node.step.probe_of)
    lost_at = simulation.step("save A").attempts[0].finish_time.ToMilliseconds()
    assert probe.attempts[0].intend_time.ToMilliseconds() >= lost_at + 2_000


@given(some.lists(SAVES, max_size=6))
def test_whatever_happens_to_saves_every_record_is_there_once(saves: list[str]) -> None:
    application = Application(saves=saves[:3])
    simulation = Simulation(records_plan("A", "B", "C"), application)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert sorted(application.saved) == ["A", "B", "C"]


def test_a_once_step_whose_worker_died_is_uncertain_and_goes_to_a_person() -> None:
    simulation = Simulation([step("post", "", eff.EFFECT_CLASS_ONCE)], lambda _record, _attempt: lost())
    assert simulation.run() == ev.RUN_PHASE_WAITING
    assert simulation.step("post").state == ev.NODE_STATE_UNCERTAIN
    assert len(simulation.step("post").attempts) == 1


def test_what_a_person_says_settles_an_uncertain_step() -> None:
    simulation = Simulation([step("post", "", eff.EFFECT_CLASS_ONCE)], lambda _record, _attempt: lost())
    simulation.run()
    resolved = ev.UncertaintyResolved(step_id="post", attempt=1, effect=eff.EFFECT_DONE, source="person")
    simulation.append(ev.EventBody(uncertainty_resolved=resolved))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED


def test_the_same_step_is_not_tried_three_times_in_the_same_state() -> None:
    simulation = Simulation([step("look")], lambda _record, _attempt: failed(br.BROWSER_STATUS_TIMEOUT))
    assert simulation.run() == ev.RUN_PHASE_FAILED
    assert len(simulation.step("look").attempts) == 2


def test_a_group_whose_page_is_gone_starts_again_at_its_first_step() -> None:
    application = Application()

    def world(record: st.NodeRecord, attempt: int) -> act.Outcome:
        if record.node.title == "fill A" and attempt == 1:
            return failed(br.BROWSER_STATUS_STALE)
        return application(record, attempt)

    simulation = Simulation(records_plan("A"), world)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert len(simulation.step("open A").attempts) == 2


def test_a_record_that_fails_for_good_leaves_the_others_alone() -> None:
    application = Application()

    def world(record: st.NodeRecord, attempt: int) -> act.Outcome:
        stuck = record.node.title == "fill A"
        return failed(br.BROWSER_STATUS_TIMEOUT) if stuck else application(record, attempt)

    simulation = Simulation(records_plan("A", "B"), world)
    assert simulation.run() == ev.RUN_PHASE_FAILED
    assert application.saved == ["B"]
    assert simulation.step("save A").state == ev.NODE_STATE_SKIPPED


def test_a_record_that_waits_for_a_person_is_parked_and_the_others_go_on() -> None:
    application = Application()
    simulation = Simulation(records_plan("A", "B"), application, _ask_for("save A"))
    assert simulation.run() == ev.RUN_PHASE_WAITING
    assert application.saved == ["B"]


def test_an_approved_record_is_filled_in_afresh_before_it_is_saved() -> None:
    application = Application()
    simulation = Simulation(records_plan("A", "B"), application, _ask_for("save A"))
    simulation.run()
    simulation.answer(ev.APPROVAL_STATE_GRANTED)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["B", "A"]
    assert len(simulation.step("fill A").attempts) == 2
    assert len(simulation.folded.state.approvals) == 1


def test_an_answer_does_not_interrupt_the_record_that_is_in_hand() -> None:
    application = Application()
    simulation = Simulation(records_plan("A", "B"), application, _ask_for("save A"))
    while "open B" not in [node.node.title for node in simulation.folded.state.nodes if node.attempts]:
        simulation.run_one()
    simulation.answer(ev.APPROVAL_STATE_GRANTED)
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["B", "A"]
    assert len(simulation.step("open B").attempts) == 1


def test_a_denied_record_is_not_entered_and_the_run_says_so() -> None:
    application = Application()
    simulation = Simulation(records_plan("A", "B"), application, _ask_for("save A"))
    simulation.run()
    simulation.answer(ev.APPROVAL_STATE_DENIED)
    assert simulation.run() == ev.RUN_PHASE_FAILED
    assert application.saved == ["B"]
    assert simulation.folded.state.reason == "DENIED"


def test_nothing_is_intended_while_a_pause_is_wanted() -> None:
    simulation = Simulation(records_plan("A"), Application())
    _command(simulation, cmd.Command(pause=cmd.PauseCommand()))
    assert simulation.run() == ev.RUN_PHASE_PAUSED
    assert "step_intended" not in simulation.kinds()
    _command(simulation, cmd.Command(resume=cmd.ResumeCommand()))
    assert simulation.run() == ev.RUN_PHASE_SUCCEEDED


def test_a_cancelled_run_ends_without_starting_anything_more() -> None:
    simulation = Simulation(records_plan("A"), Application())
    _command(simulation, cmd.Command(cancel=cmd.CancelCommand(reason="enough")))
    assert simulation.run() == ev.RUN_PHASE_CANCELLED
    assert "step_intended" not in simulation.kinds()


def test_a_record_shown_twice_fails_and_is_not_entered_again() -> None:
    application = Application(saved=["A"])
    simulation = Simulation(records_plan("A"), application)
    assert simulation.run() == ev.RUN_PHASE_FAILED
    assert application.saved == ["A", "A"]
    assert len(simulation.step("save A").attempts) == 1


@given(some.lists(SAVES, max_size=4))
def test_folding_the_journal_again_gives_the_same_bytes(saves: list[str]) -> None:
    simulation = Simulation(records_plan("A", "B"), Application(saves=saves[:3]))
    simulation.run()
    assert state_digest(fold(simulation.journal)) == state_digest(simulation.folded.state)


@given(some.integers(min_value=1, max_value=40))
def test_a_fold_that_goes_on_from_a_snapshot_ends_the_same(at: int) -> None:
    simulation = Simulation(records_plan("A", "B"), Application(saves=["lost after", "false"]), _ask_for("save B"))
    simulation.run()
    simulation.answer(ev.APPROVAL_STATE_GRANTED)
    simulation.run()
    at = min(at, len(simulation.journal))
    snapshot = fold(simulation.journal[:at]).SerializeToString(deterministic=True)
    folded = RunFold(st.RunState.FromString(snapshot))
    for event in simulation.journal[at:]:
        folded.apply(event)
    assert state_digest(folded.state) == state_digest(simulation.folded.state)


def _ask_for(title: str):  # noqa: ANN202 -- a policy that asks about one step
    def policy(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.title == title else pol.VERDICT_ALLOW

    return policy


def _command(simulation: Simulation, command: cmd.Command) -> None:
    simulation.append(ev.EventBody(command_applied=ev.CommandApplied(command=command)))
