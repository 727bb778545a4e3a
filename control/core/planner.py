"""Plans from a template, with no model: phase after phase, each from what the ones before it saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from control.core.phases import PHASES, Phase
from control.core.run import RunFold
from control.core.tables import Table
from infra.errors import Internal
from skyagent.execution.v1 import action_pb2 as act
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

EVENT_BYTES = 512 * 1024
"""About so many bytes of nodes go into one event; messages have room for several such."""


@dataclass(frozen=True, slots=True)
class Known:
    """All that a plan may be made from: the mission's inputs, its table, and what the run saw so far."""

    folded: RunFold
    inputs: Mapping[str, str]
    table: Table | None
    outcomes: Mapping[int, act.Outcome]
    new_id: Callable[[], str]

    def seen(self, step: st.NodeRecord) -> act.Outcome:
        """The outcome of the last attempt at a step."""
        return self.outcomes[step.attempts[-1].finished_seq]

    def group(self, phase: str) -> st.NodeRecord | None:
        """The group that was planned for a phase."""
        found = [node for node in self.folded.children("") if node.node.group.phase == phase]
        return found[0] if found else None

    def steps(self, phase: str) -> tuple[st.NodeRecord, ...]:
        """The steps right below a phase's group, probes left out."""
        group = self.group(phase)
        below = self.folded.children(group.node.node_id) if group else ()
        return tuple(node for node in below if not node.node.step.probe_of)


@dataclass(frozen=True, slots=True)
class Extension:
    """What a plan grows by."""

    nodes: tuple[plan.PlanNode, ...]
    reason: str
    more: bool


def extend(phases: Sequence[str], known: Known) -> Extension:
    """Plans as far as what is known allows.

    Raises:
        SkyError: when the mission cannot be planned, for instance because a column fits no field of the form.
    """
    begun = [position for position, name in enumerate(phases) if known.group(name)]
    at = begun[-1] if begun else -1
    if begun and not known.folded.state.spec.dry_run:
        nodes = _phase(phases[at]).go_on(known)
        if nodes:
            return Extension(nodes, _phase(phases[at]).reason, more=at + 1 < len(phases))
    for position in range(at + 1, len(phases)):
        phase = _phase(phases[position])
        nodes = phase.begin(known)
        if nodes:
            return Extension(nodes, phase.reason, more=phase.looks_first or position + 1 < len(phases))
    return Extension((), "everything is planned", more=False)


def events_of(extension: Extension, planner: str) -> tuple[ev.PlanExtended, ...]:
    """The extension as events for one commit; a large one in several, because an event must fit into a message."""
    events = [ev.PlanExtended(reason=extension.reason, planner=planner)]
    room = EVENT_BYTES
    for node in extension.nodes:
        size = node.ByteSize()
        if events[-1].nodes and size > room:
            events[-1].more = True
            events.append(ev.PlanExtended(reason=extension.reason, planner=planner))
            room = EVENT_BYTES
        events[-1].nodes.append(node)
        room -= size
    events[-1].more = extension.more
    return tuple(events)


def _phase(name: str) -> Phase:
    phase = PHASES.get(name)
    if phase is None:
        raise Internal("UNKNOWN_PHASE", f"a template names the phase {name!r}; there are {', '.join(sorted(PHASES))}")
    return phase
