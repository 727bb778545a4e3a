"""Short ways through a run's state: who is below whom, what is open, what is asked, without reading it all each time.

Everything here follows from the state alone; nothing of it is kept.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

from control.core.tree import ENDED, UNDER_WAY
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st


class Index:
    """An index of a RunState. Whoever changes the state tells it: `add`, `moved`, `opened`, `closed`, `asked`."""

    def __init__(self, state: st.RunState) -> None:
        self.records: dict[str, st.NodeRecord] = {}
        self.approvals: dict[str, st.ApprovalRecord] = {}
        self.open: dict[str, st.NodeRecord] = {}
        self.tally: defaultdict[str, Counter[ev.NodeState.ValueType]] = defaultdict(Counter)
        self._children: defaultdict[str, list[st.NodeRecord]] = defaultdict(list)
        self._probes: defaultdict[str, list[st.NodeRecord]] = defaultdict(list)
        self._position: dict[str, int] = {}
        self._checking: dict[str, st.NodeRecord] = {}
        self._under_way: defaultdict[str, dict[str, st.NodeRecord]] = defaultdict(dict)
        self._first_unended: defaultdict[str, int] = defaultdict(int)
        self._last_asked: dict[str, st.ApprovalRecord] = {}
        for record in state.nodes:
            self.add(record)
        for approval in state.approvals:
            self.asked(approval)

    def add(self, record: st.NodeRecord) -> None:
        """A node was planned."""
        node_id, parent_id = record.node.node_id, record.node.parent_id
        siblings = self._children[parent_id]
        self.records[node_id], self._position[node_id] = record, len(siblings)
        siblings.append(record)
        self._note(record)
        if record.node.step.probe_of:
            self._probes[record.node.step.probe_of].append(record)
        else:
            self.tally[parent_id][record.state] += 1
        if record.attempts and record.attempts[-1].open:
            self.open[node_id] = record

    def moved(self, record: st.NodeRecord, before: ev.NodeState.ValueType) -> None:
        """A node has another state than before."""
        self._note(record)
        if not record.node.step.probe_of:
            tally = self.tally[record.node.parent_id]
            tally[before] -= 1
            tally[record.state] += 1

    def asked(self, approval: st.ApprovalRecord) -> None:
        """A person is asked."""
        self.approvals[approval.approval_id] = approval
        self._last_asked[approval.step_id] = approval

    def children(self, node_id: str) -> tuple[st.NodeRecord, ...]:
        """The nodes right below a group, in the order of the plan."""
        return tuple(self._children[node_id])

    def descendants(self, node_id: str) -> Iterator[st.NodeRecord]:
        """Every node below a group, parents first."""
        for child in self.children(node_id):
            yield child
            yield from self.descendants(child.node.node_id)

    def unended(self, group_id: str) -> Iterator[st.NodeRecord]:
        """The nodes right below a group that are not done with, probes left out, in order."""
        children = self._children[group_id]
        position = self._first_unended[group_id]
        while position < len(children) and children[position].state in ENDED:
            position += 1
        self._first_unended[group_id] = position
        for at in range(position, len(children)):
            record = children[at]
            if record.state not in ENDED and not record.node.step.probe_of:
                yield record

    def probes(self, step_id: str) -> tuple[st.NodeRecord, ...]:
        """The steps that were planned to ask about a step, oldest first."""
        return tuple(self._probes[step_id])

    def checking(self) -> list[st.NodeRecord]:
        """Steps whose outcome is being checked: probes first, since what they saw decides about the others."""
        return sorted(self._checking.values(), key=lambda record: not record.node.step.probe_of)

    def latest_under_way(self, group_id: str) -> st.NodeRecord | None:
        """The last of the nodes right below a group that are under way, probes left out."""
        found = self._under_way[group_id].values()
        return max(found, key=lambda record: self._position[record.node.node_id], default=None)

    def last_asked(self, step_id: str) -> st.ApprovalRecord | None:
        """The last question that was asked about a step."""
        return self._last_asked.get(step_id)

    def last_questions(self) -> Iterator[st.ApprovalRecord]:
        """The last question about each step that any was asked about."""
        return iter(self._last_asked.values())

    def _note(self, record: st.NodeRecord) -> None:
        node_id, parent_id = record.node.node_id, record.node.parent_id
        _keep(self._checking, record, wanted=record.state == ev.NODE_STATE_CHECKING)
        under_way = record.state in UNDER_WAY and not record.node.step.probe_of
        _keep(self._under_way[parent_id], record, wanted=under_way)
        if record.state not in ENDED:
            self._first_unended[parent_id] = min(self._first_unended[parent_id], self._position[node_id])


def _keep(among: dict[str, st.NodeRecord], record: st.NodeRecord, *, wanted: bool) -> None:
    if wanted:
        among[record.node.node_id] = record
    else:
        among.pop(record.node.node_id, None)
