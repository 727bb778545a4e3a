"""What the planner of a run makes of what a person says to it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from skyagent.mission.v1 import mission_pb2 as mission


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether it is heeded, and the same for a person."""

    heeded: bool
    note: str


def answer(spec: mission.MissionSpec) -> Answer:
    """A template plans without a model: it cannot understand a sentence, and says so rather than pretend."""
    return Answer(
        heeded=False,
        note=f"it stands in the run's journal, but the template {spec.template} plans without a model and heeds neither"
        " messages nor another goal: pause or cancel the run, or start a mission with other inputs",
    )
