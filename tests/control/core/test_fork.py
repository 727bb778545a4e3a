"""A fork takes over facts, not rights, and does nothing silently again that a relative began."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from control.core import fork
from control.core.fork import UNCERTAIN_IN_PARENT, Parent, inherit, planned_later
from control.core.lineage import Begun, begun_in
from control.core.moves import Attempt
from control.core.run import RunFold, outcome_in
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Application, Simulation, World, group, ok, records_plan, step

ASKED = "save r2"


def parent_at(run: Simulation, seq: int) -> Parent:
    """What mission-api reads of a run for a fork."""
    folded, outcomes = RunFold(), dict[int, act.Outcome]()
    for event in run.journal[:seq]:
        folded.apply(event)
        if (outcome := outcome_in(event.body)) is not None:
            outcomes[event.seq] = outcome
    begun = begun_in("R", [event.body for event in run.journal])
    return Parent(folded.state, outcomes, begun, folded.state.planning_open)


@dataclass
class Child(Simulation):
    """A fork, driven like any run."""

    parent: Parent | None = None

    def __post_init__(self) -> None:
        assert self.parent
        created = ev.RunCreated(mission_id="M", tenant="t", lineage="R", parent=ev.ForkPoint(run_id="R", seq=1))
        inherited = inherit(self.parent, self.new_id)
        self.append(ev.EventBody(run_created=created), *inherited.events)
        self.append(ev.EventBody(owner_changed=ev.OwnerChanged(node_id="node-1")))
        self.notes = inherited.notes


def fork_of(run: Simulation, seq: int, world: World | None = None) -> Child:
    return Child(run.nodes, world or run.world, parent=parent_at(run, seq), now_ms=run.now_ms + 60_000)


def seq_of(run: Simulation, wanted: Callable[[ev.EventBody], bool]) -> int:
    return next(event.seq for event in run.journal if wanted(event.body))


def intent_of(run: Simulation, title: str) -> int:
    return seq_of(run, lambda body: run.step(title).node.node_id == body.step_intended.step_id)


def test_a_fork_ends_as_its_parent_would_have_and_enters_what_was_left_once() -> None:
    application = Application()
    run = Simulation(records_plan("r1", "r2", "r3"), application)
    while "r1" not in application.saved:
        run.run_one()
    child = fork_of(run, len(run.journal))
    assert child.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["r1", "r2", "r3"]
    assert child.folded.state.counts.steps_succeeded == 9


@pytest.mark.parametrize("title", ["open r1", "fill r1", "save r1", "open r2", "save r3"])
def test_wherever_a_finished_run_is_forked_its_fork_saves_nothing_again(title: str) -> None:
    application = Application()
    run = Simulation(records_plan("r1", "r2", "r3"), application)
    assert run.run() == ev.RUN_PHASE_SUCCEEDED
    child = fork_of(run, intent_of(run, title))
    assert child.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["r1", "r2", "r3"]


def test_a_step_that_the_parent_began_and_that_never_happened_is_done_by_the_fork() -> None:
    application = Application(saves=["lost before"])
    run = Simulation(records_plan("r1"), application)
    while not run.folded.state.counts.attempts or run.step("save r1").state != ev.NODE_STATE_CHECKING:
        run.run_one()
    child = fork_of(run, intent_of(run, "open r1"))
    assert child.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["r1"]
    titles = [child.folded.node(body.step_intended.step_id).node.title for body in intents(child)]
    assert titles == ["Ask the application again", "open r1", "fill r1", "save r1", "Ask the application again"]


def intents(run: Simulation) -> list[ev.EventBody]:
    return [event.body for event in run.journal if event.body.HasField("step_intended")]


def once_plan() -> Simulation:
    return Simulation([group("g"), step("post", "g", eff.EFFECT_CLASS_ONCE)], lambda _record, _attempt: ok())


@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_what_may_happen_once_and_was_begun_by_the_parent_is_put_to_a_person(earlier: int) -> None:
    run = once_plan()
    run.run()
    child = fork_of(run, intent_of(run, "post") - earlier)
    assert child.run() == ev.RUN_PHASE_WAITING
    assert child.step("post").state == ev.NODE_STATE_UNCERTAIN
    assert "run R of the same lineage began it" in child.step("post").reason
    assert not intents(child)


def test_an_open_intent_of_the_parent_is_uncertain_in_the_fork_and_never_dispatched() -> None:
    run = once_plan()
    run.run()
    child = fork_of(run, intent_of(run, "post"))
    (attempt,) = child.step("post").attempts
    assert (attempt.open, attempt.outcome_reason, attempt.status) == (
        False,
        UNCERTAIN_IN_PARENT,
        act.OUTCOME_STATUS_LOST,
    )
    assert child.folded.state.counts.open_intents == 0
    assert not isinstance(child.move(), Attempt)


def test_what_a_person_says_did_not_happen_is_done_by_the_fork_under_a_new_attempt() -> None:
    run = once_plan()
    run.run()
    child = fork_of(run, intent_of(run, "post"))
    child.run()
    resolved = ev.UncertaintyResolved(step_id="post", attempt=1, effect=eff.EFFECT_NONE, source="person")
    child.append(ev.EventBody(uncertainty_resolved=resolved))
    assert child.run() == ev.RUN_PHASE_SUCCEEDED
    assert [body.step_intended.attempt for body in intents(child)] == [2]


@pytest.mark.parametrize("granted", [False, True])
def test_a_question_of_the_parent_is_void_and_asked_anew(*, granted: bool) -> None:
    def policy(record: st.NodeRecord) -> pol.Verdict.ValueType:
        return pol.VERDICT_ASK if record.node.title == ASKED else pol.VERDICT_ALLOW

    application = Application()
    run = Simulation(records_plan("r1", "r2"), application, policy)
    run.run()
    if granted:
        run.answer(ev.APPROVAL_STATE_GRANTED)
    child = Child(run.nodes, application, policy, parent=parent_at(run, len(run.journal)), now_ms=run.now_ms)
    assert child.run() == ev.RUN_PHASE_WAITING
    assert application.saved == ["r1"]
    first, second = child.folded.state.approvals
    assert (first.state, second.state) == (ev.APPROVAL_STATE_EXPIRED, ev.APPROVAL_STATE_PENDING)
    assert first.approval_id != second.approval_id
    child.answer(ev.APPROVAL_STATE_GRANTED)
    assert child.run() == ev.RUN_PHASE_SUCCEEDED


def test_a_fork_of_a_fork_knows_what_both_began() -> None:
    application = Application()
    run = Simulation(records_plan("r1", "r2"), application)
    while "r1" not in application.saved:
        run.run_one()
    child = fork_of(run, len(run.journal))
    child.run()
    again = parent_at(child, 3)
    begun = {**parent_at(run, 1).begun, **begun_in("C", [event.body for event in child.journal])}
    grandchild = Child(run.nodes, application, parent=Parent(again.state, again.outcomes, begun, planning_open=False))
    assert grandchild.run() == ev.RUN_PHASE_SUCCEEDED
    assert application.saved == ["r1", "r2"]


def test_a_fork_folds_without_its_parent_and_from_a_snapshot_to_the_same() -> None:
    run = Simulation(records_plan("r1", "r2"), Application())
    run.run()
    child = fork_of(run, intent_of(run, "save r1"))
    kept = st.RunState.FromString(child.folded.state.SerializeToString(deterministic=True))
    assert RunFold(kept).last_intended is None
    child.run()
    folded = RunFold()
    for event in child.journal:
        folded.apply(event)
    assert folded.state == child.folded.state


def test_what_a_fork_inherits_comes_in_pieces_that_fit_into_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Simulation(records_plan(*(f"r{number}" for number in range(40))), Application())
    run.run(5_000)
    whole = fork_of(run, len(run.journal)).folded.state
    monkeypatch.setattr(fork, "EVENT_BYTES", 4_000)
    parts = fork_of(run, len(run.journal))
    inherited = [event for event in parts.journal if event.body.HasField("state_inherited")]
    assert len(inherited) >= 10
    assert all(event.ByteSize() < 8_000 for event in inherited)
    assert parts.folded.state.nodes == whole.nodes


def sign_in_plan() -> Simulation:
    nodes = [group("sign in", restart_from_first=True), step("send", "sign in", eff.EFFECT_CLASS_IDEMPOTENT)]
    return Simulation([*nodes, *records_plan("r1", "r2")], Application())


def test_without_a_session_of_the_parent_signing_in_comes_first_and_the_fork_says_so() -> None:
    run = sign_in_plan()
    run.run()
    child = fork_of(run, intent_of(run, "save r2"))
    assert "no session of the parent is known at this event: 'sign in' starts again" in child.notes[0]
    child.run()
    titles = [child.folded.node(body.step_intended.step_id).node.title for body in intents(child)]
    assert titles[:2] == ["send", "Ask the application again"]


def test_with_a_session_of_the_parent_nobody_signs_in_again() -> None:
    run = sign_in_plan()
    signed_in = run.world

    def world(record: st.NodeRecord, attempt: int) -> act.Outcome:
        outcome = signed_in(record, attempt)
        outcome.session.CopyFrom(act.SessionState(session_id="main", state=BlobRef(digest=f"b3:{'0' * 64}")))
        return outcome

    run.world = world
    run.run()
    child = fork_of(run, intent_of(run, "save r2"), signed_in)
    assert not any("session" in note for note in child.notes)
    assert child.run() == ev.RUN_PHASE_SUCCEEDED
    assert "send" not in [child.folded.node(body.step_intended.step_id).node.title for body in intents(child)]
    assert child.folded.state.sessions == run.folded.state.sessions


def test_effects_of_a_plan_that_is_later_than_the_fork_point_are_named() -> None:
    run = Simulation(records_plan("r1"), Application())
    run.run()
    assert planned_later(parent_at(run, 2)) == ["save r1"]
    assert planned_later(parent_at(run, 3)) == []


def test_artifacts_carry_over_under_ids_of_their_own() -> None:
    run = Simulation(records_plan("r1"), Application())
    made = ev.ArtifactRecorded(artifact_id="A", name="table.csv", blob=BlobRef(digest=f"b3:{'1' * 64}"))
    run.append(ev.EventBody(artifact_recorded=made))
    (carried,) = fork_of(run, len(run.journal)).folded.state.artifacts
    assert (carried.name, carried.blob) == (made.name, made.blob)
    assert carried.artifact_id != "A"


def test_what_certainly_did_nothing_was_not_begun() -> None:
    intended = ev.EventBody(step_intended=ev.StepIntended(step_id="s", effect_class=eff.EFFECT_CLASS_ONCE))
    none = act.Outcome(status=act.OUTCOME_STATUS_REFUSED, effect=eff.EFFECT_NONE)
    refused = ev.EventBody(step_finished=ev.StepFinished(step_id="s", outcome=none))
    withdrawn = ev.EventBody(step_withdrawn=ev.StepWithdrawn(step_id="s"))
    nobodys = {"s": Begun("", 1)}
    assert begun_in("R", [intended, refused]) == begun_in("R", [intended, withdrawn]) == nobodys
    assert begun_in("R", [intended, refused, intended]) == {"s": Begun("R", 2, open=True)}, "numbers never come back"
    assert begun_in("R", [intended]) == {"s": Begun("R", 1, open=True)}
    lost = ev.EventBody(step_finished=ev.StepFinished(step_id="s", outcome=act.Outcome(effect=eff.EFFECT_UNKNOWN)))
    assert begun_in("R", [intended, lost, intended, refused]) == {"s": Begun("R", 2)}


def test_limits_and_counters_of_the_parent_are_not_the_forks() -> None:
    run = Simulation(records_plan("r1", "r2"), Application())
    run.run()
    counts = fork_of(run, len(run.journal) - 1).folded.state.counts
    assert (counts.attempts, counts.takeovers, counts.steps, counts.steps_succeeded) == (0, 0, 6, 6)
