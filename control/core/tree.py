"""How a group of a plan stands, given how its children stand."""

from collections.abc import Mapping

from skyagent.run.v1 import event_pb2 as ev

ENDED = frozenset(
    {ev.NODE_STATE_SUCCEEDED, ev.NODE_STATE_FAILED, ev.NODE_STATE_SKIPPED, ev.NODE_STATE_DENIED},
)
"""States of a node that is done with."""

UNDER_WAY = frozenset(
    {ev.NODE_STATE_RUNNING, ev.NODE_STATE_CHECKING, ev.NODE_STATE_WAITING, ev.NODE_STATE_UNCERTAIN},
)
"""States of a node that has begun and is not done with."""

_FIRST_OF = (ev.NODE_STATE_UNCERTAIN, ev.NODE_STATE_WAITING, ev.NODE_STATE_CHECKING, ev.NODE_STATE_RUNNING)


def group_state(tally: Mapping[ev.NodeState.ValueType, int], before: ev.NodeState.ValueType) -> ev.NodeState.ValueType:
    """The state of a group with so many children in each state.

    What needs a person shows first. A group that began and has children left is running.
    """
    for state in _FIRST_OF:
        if tally.get(state, 0):
            return ev.NODE_STATE_RUNNING if state == ev.NODE_STATE_CHECKING else state
    counts = {state: number for state, number in tally.items() if number}
    if set(counts) <= {ev.NODE_STATE_SUCCEEDED}:
        return ev.NODE_STATE_SUCCEEDED if counts else before
    if set(counts) <= {ev.NODE_STATE_SKIPPED}:
        return ev.NODE_STATE_SKIPPED
    if set(counts) <= ENDED:
        return ev.NODE_STATE_FAILED
    if set(counts) <= {ev.NODE_STATE_PENDING}:
        return ev.NODE_STATE_PENDING
    return ev.NODE_STATE_RUNNING
