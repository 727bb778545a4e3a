"""What must not happen twice among a run, its forks and theirs: which of them began it, and how often. Pure.

Step ids are shared by the plans of a lineage. A step whose effect is PROBEABLE or ONCE is begun by one run of it at a
time, under a number that rises with each beginning; who begins it next must know of the last (control/journal/lineage).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev

NOT_TWICE = frozenset({eff.EFFECT_CLASS_PROBEABLE, eff.EFFECT_CLASS_ONCE})
"""Effects that no two runs of a lineage may have by one step."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A step that a run of the lineage began last, under which number, and whether that attempt is open."""

    run_id: str
    number: int
    open: bool = False


def begun_in(run_id: str, events: Iterable[ev.EventBody]) -> dict[str, Begun]:
    """Steps that a run without relatives began, in the order of its journal.

    One that certainly came to nothing is nobody's (run_id ""), but keeps its number: numbers never come back.
    """
    found: dict[str, Begun] = {}
    for body in events:
        if body.HasField("step_intended") and body.step_intended.effect_class in NOT_TWICE:
            step_id = body.step_intended.step_id
            before = found.get(step_id)
            found[step_id] = Begun(run_id, before.number + 1 if before else 1, open=True)
        elif (ended := ending_of(body)) is not None and ended.step_id in found:
            before = found[ended.step_id]
            nothing = ended.nothing and before.number == 1
            found[ended.step_id] = Begun("" if nothing else run_id, before.number, open=False)
    return found


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a step's open attempt; `nothing`: it is certain that it did nothing."""

    step_id: str
    nothing: bool


def ending_of(body: ev.EventBody) -> Ending | None:
    """The end of an attempt that an event tells of; nothing when it tells of none."""
    match body.WhichOneof("kind"):
        case "step_finished":
            nothing = body.step_finished.outcome.effect == eff.EFFECT_NONE
            return Ending(body.step_finished.step_id, nothing)
        case "step_withdrawn":
            return Ending(body.step_withdrawn.step_id, nothing=True)
        case "step_uncertain":
            return Ending(body.step_uncertain.step_id, nothing=False)
        case _:
            return None
