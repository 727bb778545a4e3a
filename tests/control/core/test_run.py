from __future__ import annotations

from collections import Counter

import pytest

from control.core.run import IllegalEvent, RunFold, fold, terminal
from control.core.summary import current_step, state_digest, summary, waiting_for_person
from control.core.tree import group_state
from infra.digest import digest_of
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import group, record_group, step

PENDING, RUNNING, CHECKING = ev.NODE_STATE_PENDING, ev.NODE_STATE_RUNNING, ev.NODE_STATE_CHECKING
SUCCEEDED, FAILED, SKIPPED = ev.NODE_STATE_SUCCEEDED, ev.NODE_STATE_FAILED, ev.NODE_STATE_SKIPPED


class Journal:
    """Events as they are appended, and their fold."""

    def __init__(self, *nodes: plan.PlanNode) -> None:
        self.folded = RunFold()
        self.events: list[ev.RunEvent] = []
        self.now_ms = 1_000
        self.add(run_created=ev.RunCreated(mission_id="M", tenant="t", fold_version=1, ordinal=2))
        if nodes:
            self.add(plan_extended=ev.PlanExtended(nodes=nodes, planner="test"))

    @property
    def state(self) -> st.RunState:
        return self.folded.state

    def add(self, **body: object) -> None:
        self.now_ms += 1_000
        event = ev.RunEvent(run_id="R", seq=self.state.seq + 1, epoch=1, body=ev.EventBody(**body))  # pyright: ignore[reportArgumentType]
        event.time.FromMilliseconds(self.now_ms)
        self.events.append(event)
        self.folded.apply(event)

    def begin(self, step_id: str, attempt: int = 1) -> None:
        self.add(step_intended=ev.StepIntended(step_id=step_id, attempt=attempt, worker_id="w"))

    def end(self, step_id: str, attempt: int = 1, status: act.OutcomeStatus.ValueType = act.OUTCOME_STATUS_OK) -> None:
        outcome = act.Outcome(status=status, effect=eff.EFFECT_DONE, message="done", reason="R")
        self.add(step_finished=ev.StepFinished(step_id=step_id, attempt=attempt, outcome=outcome))

    def prove(self, step_id: str, holds: plan.Holds.ValueType = plan.HOLDS_YES, attempt: int = 1) -> None:
        self.add(step_validated=ev.StepValidated(step_id=step_id, attempt=attempt, holds=holds))

    def settle(self, node_id: str, state: ev.NodeState.ValueType) -> None:
        self.add(node_settled=ev.NodeSettled(node_id=node_id, state=state, reason="so", signature="SO"))

    def do(self, step_id: str) -> None:
        self.begin(step_id)
        self.end(step_id)
        self.prove(step_id)

    def ask(self, step_id: str, approval_id: str = "A") -> None:
        asked = ev.ApprovalRequested(approval_id=approval_id, step_id=step_id, action_digest="d", summary="pay")
        self.add(approval_requested=asked)

    def state_of(self, node_id: str) -> ev.NodeState.ValueType:
        return self.folded.node(node_id).state

    def command(self, command: cmd.Command) -> None:
        self.add(command_applied=ev.CommandApplied(command_id="c", command=command))


def test_a_gap_in_the_journal_is_refused() -> None:
    with pytest.raises(IllegalEvent, match="event 3 of run R follows event 0") as caught:
        RunFold().apply(ev.RunEvent(run_id="R", seq=3, body=ev.EventBody(run_created=ev.RunCreated())))
    assert caught.value.reason == "JOURNAL_GAP"


def test_an_event_of_an_unknown_kind_is_refused_and_an_erased_one_is_passed() -> None:
    with pytest.raises(IllegalEvent, match="unknown here") as caught:
        RunFold().apply(ev.RunEvent(run_id="R", seq=1))
    assert caught.value.reason == "UNKNOWN_EVENT"
    folded = RunFold()
    folded.apply(ev.RunEvent(run_id="R", seq=1, erased=True))
    assert folded.state.seq == 1


def test_a_node_that_is_not_planned_is_refused() -> None:
    with pytest.raises(IllegalEvent, match="no node 'X'") as caught:
        Journal(step("S")).folded.node("X")
    assert caught.value.reason == "UNKNOWN_NODE"


@pytest.mark.parametrize("attempt", [0, 2, 3])
def test_an_attempt_that_leaves_a_number_out_is_refused(attempt: int) -> None:
    with pytest.raises(IllegalEvent) as caught:
        Journal(step("S")).begin("S", attempt)
    assert caught.value.reason == "ATTEMPT_GAP"


def test_an_answer_to_a_question_that_was_never_asked_is_refused() -> None:
    with pytest.raises(IllegalEvent) as caught:
        Journal(step("S")).add(approval_decided=ev.ApprovalDecided(approval_id="A"))
    assert caught.value.reason == "UNKNOWN_APPROVAL"


def test_a_new_run_is_queued_until_it_has_an_owner() -> None:
    journal = Journal()
    state = journal.state
    assert (state.run_id, state.mission_id, state.tenant, state.ordinal) == ("R", "M", "t", 2)
    assert (state.phase, state.planning_open) == (ev.RUN_PHASE_QUEUED, True)
    journal.add(owner_changed=ev.OwnerChanged(node_id="n"))
    assert (state.phase, state.node_id, state.counts.takeovers) == (ev.RUN_PHASE_RUNNING, "n", 0)
    journal.add(owner_changed=ev.OwnerChanged(node_id="n"))
    assert state.counts.takeovers == 1
    assert state.update_time.ToMilliseconds() == journal.now_ms


def test_an_attempt_is_open_from_its_intent_to_its_result() -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    record = journal.folded.node("S")
    assert [(r.node.node_id, a.attempt) for r, a in journal.folded.open_attempts()] == [("S", 1)]
    assert (record.state, journal.state.counts.open_intents, journal.state.counts.attempts) == (RUNNING, 1, 1)
    assert (record.attempts[0].intended_seq, record.attempts[0].worker_id) == (3, "w")
    journal.end("S")
    assert journal.folded.open_attempts() == []
    assert (record.state, journal.state.counts.open_intents) == (CHECKING, 0)
    assert (record.attempts[0].finished_seq, record.attempts[0].message) == (4, "done")
    assert (record.attempts[0].outcome_reason, record.attempts[0].effect) == ("R", eff.EFFECT_DONE)
    assert journal.folded.checking() == [record]
    journal.prove("S")
    assert (record.state, journal.state.counts.steps_succeeded) == (SUCCEEDED, 1)
    assert journal.folded.checking() == []


def test_attempts_are_found_by_step_and_number() -> None:
    journal = Journal(step("S"), step("T"))
    journal.begin("S")
    journal.end("S")
    journal.begin("S", 2)
    assert [journal.folded.attempt("S", number) for number in (0, 1, 2, 3)] == [
        None,
        *journal.folded.node("S").attempts,
        None,
    ]
    assert journal.folded.last_attempt("S") == journal.folded.node("S").attempts[1]
    assert journal.folded.last_attempt("T") is None
    assert journal.folded.last_attempt("X") is None
    assert journal.folded.attempt("X", 1) is None


def test_evidence_of_an_outcome_is_kept_with_its_attempt() -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, blobs=[BlobRef(digest="b3:1")])
    journal.add(step_finished=ev.StepFinished(step_id="S", attempt=1, outcome=outcome))
    assert [blob.digest for blob in journal.folded.node("S").attempts[0].blobs] == ["b3:1"]


def test_a_withdrawn_attempt_left_nothing_behind() -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    journal.add(step_withdrawn=ev.StepWithdrawn(step_id="S", attempt=1, reason="paused"))
    attempt = journal.folded.node("S").attempts[0]
    assert (attempt.open, attempt.withdrawn, attempt.effect) == (False, True, eff.EFFECT_NONE)
    assert (journal.state_of("S"), journal.state.counts.open_intents) == (PENDING, 0)
    assert attempt.message == "paused"


def test_a_success_that_is_none_is_counted_and_a_failure_is_not() -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    journal.end("S")
    journal.prove("S", plan.HOLDS_NO)
    assert (journal.state.counts.false_successes, journal.state_of("S")) == (1, CHECKING)
    journal.begin("S", 2)
    journal.end("S", 2, act.OUTCOME_STATUS_LOST)
    journal.prove("S", plan.HOLDS_NO, 2)
    assert (journal.state.counts.false_successes, journal.state.counts.lost_attempts) == (1, 1)


def test_a_retried_step_waits_for_its_moment() -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    journal.end("S")
    retried = ev.StepRetried(step_id="S", attempt=1, reason="again")
    retried.not_before.FromMilliseconds(77)
    journal.add(step_retried=retried)
    record = journal.folded.node("S")
    assert (record.state, record.reason, record.not_before.ToMilliseconds()) == (PENDING, "again", 77)


def test_a_question_parks_its_step_until_it_is_answered_with_yes() -> None:
    journal = Journal(group("G"), step("S", "G"))
    journal.ask("S")
    assert (journal.state_of("S"), journal.state_of("G")) == (ev.NODE_STATE_WAITING, ev.NODE_STATE_WAITING)
    assert (journal.state.counts.approvals, waiting_for_person(journal.state)) == (1, 1)
    granted = ev.ApprovalDecided(approval_id="A", state=ev.APPROVAL_STATE_GRANTED, actor="ann", note="fine")
    journal.add(approval_decided=granted)
    approval = journal.folded.last_asked("S")
    assert approval is not None
    assert (approval.actor, approval.note, journal.state_of("S")) == ("ann", "fine", PENDING)
    assert waiting_for_person(journal.state) == 0
    journal.add(step_intended=ev.StepIntended(step_id="S", attempt=1, approval_id="A"))
    assert approval.state == ev.APPROVAL_STATE_CONSUMED


def test_a_no_leaves_the_step_waiting_for_what_follows_from_it() -> None:
    journal = Journal(step("S"))
    journal.ask("S")
    journal.add(approval_decided=ev.ApprovalDecided(approval_id="A", state=ev.APPROVAL_STATE_DENIED))
    assert journal.state_of("S") == ev.NODE_STATE_WAITING


def test_the_last_question_about_a_step_is_the_one_that_counts() -> None:
    journal = Journal(step("S"), step("T"))
    for approval_id, step_id in (("A", "S"), ("B", "S"), ("C", "T")):
        journal.ask(step_id, approval_id)
    assert [approval.approval_id for approval in journal.folded.last_questions()] == ["B", "C"]
    assert journal.folded.last_asked("X") is None


def test_an_uncertain_step_is_open_no_more_and_shows_in_its_group_and_in_the_counts() -> None:
    journal = Journal(group("G"), step("S", "G"))
    journal.begin("S")
    journal.add(step_uncertain=ev.StepUncertain(step_id="S", attempt=1, known="nobody knows"))
    record = journal.folded.node("S")
    assert (record.reason, record.attempts[0].effect) == ("nobody knows", eff.EFFECT_UNKNOWN)
    assert (journal.state.counts.uncertain, journal.state.counts.open_intents) == (1, 0)
    assert journal.state_of("G") == ev.NODE_STATE_UNCERTAIN
    assert waiting_for_person(journal.state) == 1


@pytest.mark.parametrize(("effect", "state"), [(eff.EFFECT_DONE, SUCCEEDED), (eff.EFFECT_NONE, PENDING)])
def test_an_uncertainty_is_settled_either_way(effect: eff.Effect.ValueType, state: ev.NodeState.ValueType) -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    journal.end("S")
    journal.add(step_uncertain=ev.StepUncertain(step_id="S", attempt=1))
    journal.add(uncertainty_resolved=ev.UncertaintyResolved(step_id="S", attempt=1, effect=effect, note="I looked"))
    record = journal.folded.node("S")
    assert (record.state, record.reason, record.attempts[0].effect) == (state, "I looked", effect)
    assert journal.state.counts.uncertain == 0


def test_a_group_follows_its_children() -> None:
    journal = Journal(group("G"), step("A", "G"), step("B", "G"))
    assert journal.state_of("G") == PENDING
    journal.begin("A")
    assert journal.state_of("G") == RUNNING
    journal.end("A")
    assert journal.state_of("G") == RUNNING
    journal.prove("A")
    assert journal.state_of("G") == RUNNING
    journal.do("B")
    assert journal.state_of("G") == SUCCEEDED
    assert journal.state.counts.steps_succeeded == journal.state.counts.steps == 2


def test_a_failed_step_ends_its_group_and_skips_what_is_left_of_it() -> None:
    journal = Journal(group("G"), group("H", "G"), step("A", "H"), step("B", "H"), step("C", "G"))
    journal.settle("A", FAILED)
    states = {node: journal.state_of(node) for node in "GHABC"}
    assert states == {"G": FAILED, "H": FAILED, "A": FAILED, "B": SKIPPED, "C": SKIPPED}
    assert journal.folded.node("G").reason == "so"
    assert journal.folded.node("G").signature == "SO"
    assert journal.folded.node("B").reason == "not tried, because of a failure before it"


def test_a_group_that_may_fail_leaves_the_groups_after_it_alone() -> None:
    journal = Journal(
        group("records", on_failure=plan.ON_FAILURE_CONTINUE), *record_group("X")[:2], *record_group("Y")[:2]
    )
    journal.settle("open X", ev.NODE_STATE_DENIED)
    assert (journal.state_of("X"), journal.state_of("Y")) == (ev.NODE_STATE_DENIED, PENDING)
    assert journal.state_of("records") == RUNNING
    journal.do("open Y")
    assert journal.state_of("records") == FAILED


def test_a_failed_root_step_skips_all_that_is_left() -> None:
    journal = Journal(step("A"), group("G"), step("B", "G"))
    journal.settle("A", FAILED)
    assert (journal.state_of("G"), journal.state_of("B")) == (SKIPPED, SKIPPED)


def test_probes_do_not_count_as_steps_and_do_not_move_their_group() -> None:
    journal = Journal(group("G"), step("S", "G"))
    probe = step("P", "G")
    probe.step.probe_of = "S"
    journal.add(plan_extended=ev.PlanExtended(nodes=[probe], more=False))
    assert journal.state.planning_open is False
    assert journal.state.counts.steps == 1
    journal.begin("S")
    journal.end("S")
    journal.begin("P")
    assert [node.node.node_id for node in journal.folded.probes("S")] == ["P"]
    assert journal.folded.last_intended is journal.folded.node("S")
    journal.end("P")
    assert [node.node.node_id for node in journal.folded.checking()] == ["P", "S"]
    journal.settle("P", FAILED)
    assert journal.state_of("G") == RUNNING


def test_planning_stays_open_as_long_as_the_planner_says() -> None:
    journal = Journal()
    journal.add(plan_extended=ev.PlanExtended(nodes=[step("A")], more=True, planner="p"))
    assert journal.state.planning_open
    probe = step("P")
    probe.step.probe_of = "A"
    journal.add(plan_extended=ev.PlanExtended(nodes=[probe]))
    assert journal.state.planning_open
    assert (journal.folded.node("A").planner, journal.folded.node("A").planned_seq) == ("p", 2)


def test_a_group_that_starts_again_forgets_how_far_it_was() -> None:
    journal = Journal(group("G"), step("A", "G"), step("B", "G"))
    journal.do("A")
    journal.begin("B")
    journal.end("B")
    restarted = ev.GroupRestarted(node_id="G", restart=1, reason="gone")
    restarted.not_before.FromMilliseconds(9)
    journal.add(group_restarted=restarted)
    record = journal.folded.node("G")
    assert (record.restarts, record.reason, record.not_before.ToMilliseconds()) == (1, "gone", 9)
    assert [journal.state_of(node) for node in "GAB"] == [PENDING, PENDING, PENDING]
    assert journal.folded.node("A").attempts_before_restart == 1
    assert journal.state.counts.steps_succeeded == 0
    assert [node.node.node_id for node in journal.folded.unended("G")] == ["A", "B"]


def test_what_is_not_ended_is_found_in_order_and_without_probes() -> None:
    journal = Journal(group("G"), *(step(name, "G") for name in "ABCD"))
    probe = step("P", "G")
    probe.step.probe_of = "A"
    journal.add(plan_extended=ev.PlanExtended(nodes=[probe]))
    journal.do("A")
    journal.do("C")
    assert [node.node.node_id for node in journal.folded.unended("G")] == ["B", "D"]
    journal.do("B")
    journal.begin("D")
    assert [node.node.node_id for node in journal.folded.unended("G")] == ["D"]


def test_people_are_told_what_the_run_is_doing() -> None:
    journal = Journal(group("records"), *record_group("X")[:3], *record_group("Y")[:3])
    assert current_step(journal.folded) == ""
    journal.begin("open X")
    assert current_step(journal.folded) == "X: open X"
    journal.end("open X")
    journal.prove("open X")
    journal.ask("fill X")
    journal.begin("open Y")
    assert current_step(journal.folded) == "Y: open Y"
    journal.end("open Y")
    journal.prove("open Y")
    assert current_step(journal.folded) == "records: Y"


@pytest.mark.parametrize(
    ("command", "phase"),
    [
        (cmd.Command(pause=cmd.PauseCommand()), ev.RUN_PHASE_PAUSED),
        (cmd.Command(cancel=cmd.CancelCommand(reason="x")), ev.RUN_PHASE_CANCELLING),
        (cmd.Command(steer=cmd.SteerCommand(message="x")), ev.RUN_PHASE_RUNNING),
    ],
)
def test_commands_change_the_phase(command: cmd.Command, phase: ev.RunPhase.ValueType) -> None:
    journal = Journal(step("S"))
    journal.add(owner_changed=ev.OwnerChanged(node_id="n"))
    journal.command(command)
    assert journal.state.phase == phase


def test_a_pause_is_under_way_while_something_is_open_and_ends_with_resume() -> None:
    journal = Journal(step("S"))
    journal.add(owner_changed=ev.OwnerChanged(node_id="n"))
    journal.begin("S")
    journal.command(cmd.Command(pause=cmd.PauseCommand()))
    assert journal.state.phase == ev.RUN_PHASE_PAUSING
    journal.end("S")
    assert journal.state.phase == ev.RUN_PHASE_PAUSED
    journal.command(cmd.Command(resume=cmd.ResumeCommand()))
    assert journal.state.phase == ev.RUN_PHASE_RUNNING
    journal.command(cmd.Command(cancel=cmd.CancelCommand(reason="enough")))
    assert (journal.state.cancel_wanted, journal.state.cancel_reason) == (True, "enough")


def test_what_people_say_is_kept() -> None:
    journal = Journal()
    journal.command(cmd.Command(steer=cmd.SteerCommand(message="look left")))
    journal.command(cmd.Command(priority=cmd.PriorityCommand(priority=7)))
    deadline = cmd.DeadlineCommand()
    deadline.deadline.FromMilliseconds(5)
    journal.command(cmd.Command(deadline=deadline))
    state = journal.state
    assert (list(state.steering), state.priority, state.deadline.ToMilliseconds()) == (["look left"], 7, 5)


def test_only_a_person_makes_a_run_wait() -> None:
    journal = Journal(step("S"))
    journal.add(owner_changed=ev.OwnerChanged(node_id="n"))
    journal.add(run_blocked=ev.RunBlocked(reason="NO_WORKER", detail="none"))
    assert (journal.state.phase, journal.state.blocked_detail) == (ev.RUN_PHASE_RUNNING, "none")
    journal.add(run_blocked=ev.RunBlocked(reason="WAITING_FOR_PERSON"))
    assert journal.state.phase == ev.RUN_PHASE_WAITING
    journal.add(run_unblocked=ev.RunUnblocked())
    assert (journal.state.phase, journal.state.blocked_reason) == (ev.RUN_PHASE_RUNNING, "")


def test_an_ended_run_stays_as_it_ended() -> None:
    journal = Journal(step("S"))
    journal.add(run_blocked=ev.RunBlocked(reason="NO_WORKER"))
    journal.add(run_finished=ev.RunFinished(phase=ev.RUN_PHASE_FAILED, summary="no", reason="X"))
    state = journal.state
    assert (state.phase, state.summary, state.reason, state.blocked_reason) == (ev.RUN_PHASE_FAILED, "no", "X", "")
    assert state.finish_time.ToMilliseconds() == journal.now_ms
    assert not state.planning_open
    late = ev.LateResult(step_id="S", attempt=1)
    journal.add(late_result=late)
    journal.command(cmd.Command(pause=cmd.PauseCommand()))
    assert state.phase == ev.RUN_PHASE_FAILED
    assert terminal(state.phase)
    assert not terminal(ev.RUN_PHASE_WAITING)


def test_model_calls_and_their_cost_are_counted() -> None:
    journal = Journal()
    journal.add(model_call_intended=ev.ModelCallIntended(call_id="1"))
    journal.add(model_call_finished=ev.ModelCallFinished(call_id="1", cost_microusd=7))
    assert (journal.state.counts.model_calls, journal.state.counts.cost_microusd) == (1, 7)


def test_files_are_kept_in_the_order_in_which_they_were_made() -> None:
    journal = Journal()
    for name in "ab":
        journal.add(artifact_recorded=ev.ArtifactRecorded(artifact_id=name, name=name))
    assert [artifact.name for artifact in journal.state.artifacts] == ["a", "b"]


def test_a_list_shows_a_run_without_its_steps() -> None:
    journal = Journal(step("S"))
    journal.begin("S")
    shown = summary(journal.state, current_step(journal.folded))
    assert (shown.run_id, shown.mission_id, shown.current_step) == ("R", "M", "S")
    assert (shown.phase, shown.counts.attempts, shown.waiting_for_person) == (ev.RUN_PHASE_QUEUED, 1, 0)
    assert not shown.HasField("finish_time")


def test_a_fold_from_any_snapshot_knows_which_step_acted_last() -> None:
    journal = Journal(step("A"), step("B"))
    journal.do("A")
    journal.add(policy_decided=ev.PolicyDecided(step_id="B", attempt=1))
    again = RunFold(st.RunState.FromString(journal.state.SerializeToString()))
    assert again.last_intended is not None
    assert again.last_intended.node.node_id == "A"
    assert state_digest(fold(journal.events)) == state_digest(journal.state)


def test_a_fold_from_a_snapshot_knows_what_is_open_and_asked() -> None:
    journal = Journal(group("G"), step("A", "G"), step("B", "G"))
    journal.begin("A")
    journal.ask("B")
    again = RunFold(st.RunState.FromString(journal.state.SerializeToString()))
    assert [record.node.node_id for record, _ in again.open_attempts()] == ["A"]
    assert again.last_asked("B") is not None
    assert current_step(again) == "G: B"


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ((SUCCEEDED, SUCCEEDED), SUCCEEDED),
        ((SKIPPED, SKIPPED), SKIPPED),
        ((SUCCEEDED, SKIPPED), FAILED),
        ((FAILED, SUCCEEDED), FAILED),
        ((FAILED, FAILED), FAILED),
        ((ev.NODE_STATE_DENIED, SUCCEEDED), FAILED),
        ((PENDING, PENDING), PENDING),
        ((PENDING, SUCCEEDED), RUNNING),
        ((CHECKING, PENDING), RUNNING),
        ((RUNNING, ev.NODE_STATE_WAITING), ev.NODE_STATE_WAITING),
        ((ev.NODE_STATE_WAITING, ev.NODE_STATE_UNCERTAIN), ev.NODE_STATE_UNCERTAIN),
        ((), PENDING),
    ],
)
def test_the_state_of_a_group_is_that_of_its_children(
    states: tuple[ev.NodeState.ValueType, ...], wanted: ev.NodeState.ValueType
) -> None:
    assert group_state(Counter(states), PENDING) == wanted


def test_a_state_is_named_by_the_digest_of_its_bytes() -> None:
    state = Journal(step("S")).state
    assert state_digest(state) == digest_of(state.SerializeToString(deterministic=True))
