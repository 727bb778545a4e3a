"""What the proof knows of the mesh: the few calls it makes, and what it hears back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Part(StrEnum):
    """A process that the proof kills."""

    WORKER = "browser worker"
    CHROMIUM = "Chromium"
    ENVOY = "Envoy"
    CONTROL_PLANE = "control plane"


class Stage(StrEnum):
    """How far the mesh says it is with a record."""

    WAITING = "waiting"
    ENTERING = "entering"
    CHECKING = "checking"
    ASKING = "needs a yes"
    UNCERTAIN = "uncertain"
    DONE = "verified"
    FAILED = "failed"
    DENIED = "denied"


@dataclass(frozen=True, slots=True)
class Order:
    """The mission: enter the rows of this file into that site.

    The site is given by its root; the pages by their paths below it; `list_path` has {key} where the number goes.
    """

    rows: Path
    site: str
    form_path: str
    list_path: str
    username: str
    approve_above: str


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked; the answer is bound to the digest."""

    approval_id: str
    action_digest: str
    summary: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record as the mesh reports it. `tries` counts attempts at saving it."""

    stage: Stage = Stage.WAITING
    detail: str = ""
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """The run at one moment; records by their numbers."""

    phase: str
    records: Mapping[str, Record]
    questions: tuple[Question, ...] = ()
    false_successes: int = 0
    model_calls: int = 0
    events: int = 0
    finished: bool = False
    succeeded: bool = False
    summary: str = ""


class Mesh(Protocol):
    """A mesh that is up, driven by its public ways only."""

    async def pids(self) -> Mapping[Part, int]:
        """The parts that run now. Parts being restarted are left out; empty while nobody can say."""
        ...

    async def start(self, order: Order) -> str:
        """Start the mission; returns its run id."""
        ...

    def progress(self, run_id: str) -> AsyncIterator[Progress]:
        """The run as it goes on, whatever is killed meanwhile; ends after the first that is finished."""
        ...

    async def decide(self, question: Question, *, granted: bool) -> None:
        """Answer a question as a person."""
        ...

    async def artifacts(self, run_id: str, into: Path) -> tuple[Path, ...]:
        """Download the files that the run made; returns where they lie now."""
        ...

    def page(self, run_id: str) -> str:
        """The address where a person watches the run."""
        ...

    def door(self, run_id: str) -> str:
        """The same with the key that lets its holder in: for the screen of whoever started this, never for a file."""
        ...
