"""What a fork takes over from the run that it grows from: facts, not rights. Pure.

Done steps, their evidence, the plan and the artifacts are facts. What was open, asked, granted, leased, reserved or
budgeted is a right, and void. A step that a relative began, before the fork point or after it, is never simply begun
again: it counts as begun and lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from control.core.lineage import NOT_TWICE, Begun
from control.core.planner import EVENT_BYTES
from control.core.run import RunFold
from control.core.tree import ENDED
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

UNCERTAIN_IN_PARENT = "UNCERTAIN_IN_PARENT"
"""The reason of an attempt that was open in the parent at the fork point."""
BEGUN_ELSEWHERE = "BEGUN_ELSEWHERE"
"""The reason of an attempt that stands for what another run of the lineage began."""

DEFAULT_SESSION = "default"
"""The session of a browser action that names none."""

_INHERITED_SEQ = 2
"""The first event that tells of what was inherited: for the fork, all of it happened there."""
_UNDER_WAY = frozenset({ev.NODE_STATE_RUNNING, ev.NODE_STATE_CHECKING, ev.NODE_STATE_UNCERTAIN})


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The events that follow RunCreated in a fork, and what a person should know of them."""

    events: tuple[ev.EventBody, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Parent:
    """The run as it stood at the fork point, the outcomes that planning still needs, and all that relatives began."""

    state: st.RunState
    outcomes: Mapping[int, act.Outcome]
    begun: Mapping[str, Begun]
    planning_open: bool
    """Whether more was to be planned; a run that has ended does not say so any more."""


def inherit(parent: Parent, new_id: Callable[[], str]) -> Inheritance:
    """What a fork begins with."""
    heir = _Heir(_copied(parent.state), parent.begun)
    outcomes = list(_outcomes(heir, parent))
    heir.void()
    begun = list(heir.begun_elsewhere())
    parts = _parts(_facts(heir, parent))
    made = [
        ev.ArtifactRecorded(artifact_id=new_id(), name=file.name, blob=file.blob, step_id=file.step_id)
        for file in parent.state.artifacts
    ]
    events = (
        *(ev.EventBody(state_inherited=part) for part in parts),
        *(ev.EventBody(outcome_inherited=outcome) for outcome in outcomes),
        *(ev.EventBody(begun_elsewhere=each) for each in begun),
        *(ev.EventBody(artifact_recorded=file) for file in made),
    )
    return Inheritance(events, tuple(_notes(heir, len(begun))))


class _Heir(RunFold):
    """The parent's state on its way to become the fork's."""

    def __init__(self, state: st.RunState, begun: Mapping[str, Begun]) -> None:
        super().__init__(state)
        self._begun = begun
        self._to_be_found_out: list[tuple[st.NodeRecord, int]] = []

    def void(self) -> None:
        """Takes every right away."""
        for approval in self.state.approvals:
            if approval.state in (ev.APPROVAL_STATE_PENDING, ev.APPROVAL_STATE_GRANTED):
                approval.state, approval.note = ev.APPROVAL_STATE_EXPIRED, "void: it was the parent's"
        for record in self.state.nodes:
            if record.node.HasField("step"):
                self._void_step(record)
        del self.state.setup_groups[:]
        for record in self.state.nodes:
            if record.node.group.restart_from_first:
                self._void_group(record)
        for record in self.state.nodes:
            _forget_places(record)

    def begun_elsewhere(self) -> Iterable[ev.BegunElsewhere]:
        """What stands for attempts of relatives whose end the fork must find out by itself."""
        for record, attempt in self._to_be_found_out:
            if record.state in ENDED or record.state == ev.NODE_STATE_SKIPPED:
                continue
            begun = self._begun.get(record.node.node_id)
            run_id = begun.run_id if begun else self.state.run_id
            opened = attempt <= len(record.attempts)
            yield elsewhere(record, attempt, Begun(run_id, begun.number if begun else 0), opened=opened)

    def _void_step(self, record: st.NodeRecord) -> None:
        opened = bool(record.attempts) and record.attempts[-1].open
        if opened:
            last = record.attempts[-1]
            last.open, last.status, last.effect = False, act.OUTCOME_STATUS_LOST, eff.EFFECT_UNKNOWN
            last.outcome_reason, last.message = UNCERTAIN_IN_PARENT, "it was open in the parent at the fork point"
        if record.state in ENDED:
            return
        if record.node.step.probe_of:
            self._set(record, ev.NODE_STATE_SKIPPED)
            return
        under_way, known = record.state in _UNDER_WAY, record.node.node_id in self._begun
        record.ClearField("not_before")
        record.attempts_before_restart = len(record.attempts)
        self._set(record, ev.NODE_STATE_PENDING)
        if under_way or known:
            self._to_be_found_out.append((record, len(record.attempts) + (not opened)))

    def _void_group(self, group: st.NodeRecord) -> None:
        """Its page is gone: it starts again as a whole, unless something in it must not happen twice."""
        below = [record for record in self.descendants(group.node.node_id) if record.node.HasField("step")]
        steps = [record for record in below if not record.node.step.probe_of]
        if group.state not in ENDED:
            group.restarts = 0
            begun = [position for position, step in enumerate(steps) if _careful(step) and self._touched(step)]
            if begun:
                self._done_before(steps[: begun[0]])
            else:
                self._again(steps)
        elif group.state == ev.NODE_STATE_SUCCEEDED and self._needs_session(steps):
            self.state.setup_groups.append(group.node.node_id)
            self._again(steps)

    def _again(self, steps: Sequence[st.NodeRecord]) -> None:
        mine = {step.node.node_id for step in steps}
        self._to_be_found_out = [one for one in self._to_be_found_out if one[0].node.node_id not in mine]
        for step in steps:
            step.attempts_before_restart = len(step.attempts)
            self._set(step, ev.NODE_STATE_PENDING)

    def _done_before(self, steps: Sequence[st.NodeRecord]) -> None:
        """Whoever began a step of a group had done the ones before it; they are done anew when that came to nothing."""
        mine = {step.node.node_id for step in steps}
        self._to_be_found_out = [one for one in self._to_be_found_out if one[0].node.node_id not in mine]
        for step in steps:
            if step.state not in ENDED:
                step.reason = "done by the run of the lineage that began what follows it"
                self._set(step, ev.NODE_STATE_SUCCEEDED)

    def _touched(self, step: st.NodeRecord) -> bool:
        return step.state != ev.NODE_STATE_PENDING or any(step is record for record, _ in self._to_be_found_out)

    def _needs_session(self, steps: Sequence[st.NodeRecord]) -> bool:
        """Whether a group made a session what it was, and that session could not be taken along."""
        if any(_careful(step) for step in steps):
            return False
        kept = {session.session_id for session in self.state.sessions}
        actions = [step.node.step.action for step in steps]
        used = {action.browser.session_id or DEFAULT_SESSION for action in actions if _in_browser(action)}
        return bool(used - kept)


def elsewhere(record: st.NodeRecord, attempt: int, begun: Begun, *, opened: bool = False) -> ev.BegunElsewhere:
    """The event that says: another run began this step, and what came of it is to be found out here."""
    said = f"run {begun.run_id} of the same lineage began it: whether it happened is found out before it is done"
    reason = UNCERTAIN_IN_PARENT if opened else BEGUN_ELSEWHERE
    outcome = act.Outcome(status=act.OUTCOME_STATUS_LOST, effect=eff.EFFECT_UNKNOWN, reason=reason, message=said)
    step_id = record.node.node_id
    return ev.BegunElsewhere(
        step_id=step_id, attempt=attempt, run_id=begun.run_id, number=begun.number, outcome=outcome
    )


def planned_later(parent: Parent) -> list[str]:
    """Steps that relatives began and that the fork does not know: what it plans anew may do the same again."""
    known = {record.node.node_id for record in parent.state.nodes}
    return sorted(step_id for step_id in parent.begun if step_id not in known)


def planned_on(folded: RunFold) -> Iterable[tuple[st.NodeRecord, st.AttemptRecord]]:
    """The attempts that planning builds on: the last at the first step of each phase."""
    for phase in folded.children(""):
        for record in folded.children(phase.node.node_id)[:1]:
            yield from ((record, attempt) for attempt in record.attempts[-1:] if attempt.finished_seq)


def _outcomes(heir: RunFold, parent: Parent) -> Iterable[ev.OutcomeInherited]:
    for record, attempt in planned_on(heir):
        outcome = parent.outcomes[attempt.finished_seq]
        yield ev.OutcomeInherited(step_id=record.node.node_id, attempt=attempt.attempt, outcome=outcome)


def _facts(heir: RunFold, parent: Parent) -> st.RunState:
    """What is handed over, by name: whatever else a state holds is the parent's own."""
    state = heir.state
    facts = st.RunState(
        nodes=state.nodes,
        approvals=state.approvals,
        steering=state.steering,
        planning_open=parent.planning_open,
        setup_groups=state.setup_groups,
        sessions=state.sessions,
    )
    facts.counts.steps = state.counts.steps
    facts.counts.steps_succeeded, facts.counts.uncertain = state.counts.steps_succeeded, state.counts.uncertain
    return facts


def _parts(facts: st.RunState) -> list[ev.StateInherited]:
    """The state in pieces that fit into messages, nodes in their order; the last one carries all that is not a node."""
    nodes, parts, room = list(facts.nodes), [st.RunState()], EVENT_BYTES
    for node in nodes:
        size = node.ByteSize()
        if parts[-1].nodes and size > room:
            parts.append(st.RunState())
            room = EVENT_BYTES
        parts[-1].nodes.append(node)
        room -= size
    del facts.nodes[:]
    parts[-1].MergeFrom(facts)
    last = len(parts) - 1
    return [
        ev.StateInherited(state=part.SerializeToString(deterministic=True), more=position < last)
        for position, part in enumerate(parts)
    ]


def _forget_places(record: st.NodeRecord) -> None:
    """Sequence numbers are those of the fork's journal: what was inherited happened where it says so."""
    record.planned_seq = _INHERITED_SEQ
    for attempt in record.attempts:
        attempt.intended_seq = _INHERITED_SEQ if attempt.intended_seq else 0
        attempt.finished_seq = _INHERITED_SEQ if attempt.finished_seq else 0


def _notes(heir: RunFold, found_out: int) -> Iterable[str]:
    if heir.state.setup_groups:
        titles = ", ".join(repr(heir.node(group_id).node.title) for group_id in heir.state.setup_groups)
        yield f"no session of the parent is known at this event: {titles} starts again from its first step"
    if found_out:
        steps = "step that a relative began is" if found_out == 1 else "steps that relatives began are"
        yield f"{found_out} {steps} looked for in the world, or put to a person, before anything of it is done"


def _in_browser(action: act.Action) -> bool:
    return action.WhichOneof("kind") == "browser"


def _careful(record: st.NodeRecord) -> bool:
    return record.node.step.action.effect_class in NOT_TWICE


def _copied(state: st.RunState) -> st.RunState:
    copy = st.RunState()
    copy.CopyFrom(state)
    return copy
