"""The core of a run beside a model made of dictionaries: whatever comes in whatever order, it does nothing twice."""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from control.core.moves import Attempt, Wait
from control.core.run import terminal
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from tests.control.core.simulation import Simulation, failed, group, lost, ok, step

_CLASSES = (eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT, eff.EFFECT_CLASS_ONCE)
_LIMIT = 60


class CoreMachine(RuleBasedStateMachine):
    """Carries out the core's moves in a world that hypothesis scripts. `done` counts what happened to it by step."""

    @initialize(classes=some.lists(some.sampled_from(_CLASSES), min_size=1, max_size=4))
    def plan(self, classes: list[eff.EffectClass.ValueType]) -> None:
        names = {f"S{number}": effect for number, effect in enumerate(classes)}
        nodes = [group("G"), *(step(name, "G", effect) for name, effect in names.items())]
        self.done: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.classes = names
        self.paused = self.cancelled = False
        self.script = "done"
        self.run_of = Simulation(nodes, self.world)

    def world(self, record: st.NodeRecord, number: int) -> act.Outcome:
        """What the worker says, and what really happened."""
        name = record.node.node_id
        assert number == self.tried[name] + 1
        self.tried[name] = number
        if self.script in ("done", "lost after"):
            self.done[name] += 1
        answers = {"done": ok(), "failed": failed(br.BROWSER_STATUS_TIMEOUT)}
        return answers.get(self.script) or lost()

    @precondition(lambda self: not terminal(self.run_of.folded.state.phase))
    @rule(script=some.sampled_from(("done", "done", "failed", "lost before", "lost after")))
    def move(self, script: str) -> None:
        self.script = script
        move = self.run_of.move()
        if self.paused or self.cancelled:
            assert not isinstance(move, Attempt), "nothing is intended while a pause or a cancellation is wanted"
        if not isinstance(move, Wait) or move.until_ms:
            self.run_of.run_one()

    def command(self, command: cmd.Command) -> None:
        self.run_of.append(ev.EventBody(command_applied=ev.CommandApplied(command=command)))

    @precondition(lambda self: not terminal(self.run_of.folded.state.phase))
    @rule(wanted=some.booleans())
    def pause(self, wanted: bool) -> None:  # noqa: FBT001 (drawn by hypothesis)
        told = cmd.Command(pause=cmd.PauseCommand()) if wanted else cmd.Command(resume=cmd.ResumeCommand())
        self.command(told)
        self.paused = wanted

    @precondition(lambda self: not terminal(self.run_of.folded.state.phase))
    @rule(sure=some.integers(0, 5))
    def cancel(self, sure: int) -> None:
        if not sure:
            self.command(cmd.Command(cancel=cmd.CancelCommand()))
            self.cancelled = True

    @rule()
    def a_person_says_what_is_true(self) -> None:
        for record in self.run_of.folded.state.nodes:
            if record.node.HasField("step") and record.state == ev.NODE_STATE_UNCERTAIN:
                effect = eff.EFFECT_DONE if self.done[record.node.node_id] else eff.EFFECT_NONE
                answer = ev.UncertaintyResolved(
                    step_id=record.node.node_id, attempt=len(record.attempts), effect=effect
                )
                self.run_of.append(ev.EventBody(uncertainty_resolved=answer))

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "run_of"):
            return
        state = self.run_of.folded.state
        for name, effect in self.classes.items():
            record = next((node for node in state.nodes if node.node.node_id == name), None)
            assert effect != eff.EFFECT_CLASS_ONCE or self.done[name] <= 1
            if record is None:
                continue
            assert len(record.attempts) == self.tried[name]
            assert record.state != ev.NODE_STATE_SUCCEEDED or self.done[name]
        assert state.counts.attempts == sum(self.tried.values())
        assert not (terminal(state.phase) and state.counts.open_intents)
        assert not (state.phase == ev.RUN_PHASE_SUCCEEDED and set(self.done) != set(self.classes))

    def teardown(self) -> None:
        """Left alone, with a person who answers and a worker that works, every run ends."""
        if not hasattr(self, "run_of"):
            return
        self.pause(wanted=False)
        for _ in range(_LIMIT):
            if terminal(self.run_of.folded.state.phase):
                return
            self.a_person_says_what_is_true()
            self.move("done")
            self.both_say_the_same()
        raise AssertionError("the run does not end")


def test_the_core_of_a_run_equals_its_model() -> None:
    run_state_machine_as_test(CoreMachine, settings=settings(max_examples=60, stateful_step_count=25, deadline=None))
