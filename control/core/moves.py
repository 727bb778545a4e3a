"""What an owner can do next with a run. The core chooses one; the orchestrator carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st


@dataclass(frozen=True, slots=True)
class Attempt:
    """Have a step judged by policy and, if it may be done, intended and assigned."""

    record: st.NodeRecord
    number: int
    approval: st.ApprovalRecord | None


@dataclass(frozen=True, slots=True)
class Draw:
    """Ask the budgets of mission and tenant for more: the run has not enough left of a kind to go on."""

    kind: str
    need: int


@dataclass(frozen=True, slots=True)
class OwnStep:
    """Do a step that needs no worker."""

    record: st.NodeRecord


@dataclass(frozen=True, slots=True)
class Record:
    """Append events that follow from what is known."""

    events: tuple[ev.EventBody, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Ask the planner what comes next."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done before something happens, or before a moment (milliseconds since 1970; 0 means none)."""

    until_ms: int = 0


@dataclass(frozen=True, slots=True)
class Finish:
    """The run has ended."""

    phase: ev.RunPhase.ValueType
    reason: str
    summary: str


Move = Attempt | Draw | OwnStep | Record | Plan | Wait | Finish
