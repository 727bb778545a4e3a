"""Attempts as the worker's journal knows them: keys, fences, records, and the answers to "may it begin?"."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto


class State(StrEnum):
    """What the journal knows of an attempt."""

    BEGUN = "BEGUN"
    DONE = "DONE"
    LOST = "LOST"
    TOMBSTONE = "TOMBSTONE"  # refused or cancelled before it began: it never can
    RELEASED = "RELEASED"  # recorded by the control plane: only the key is kept


class Refusal(Enum):
    """Why an attempt may not begin."""

    STALE_FENCE = auto()  # a later owner of the run has spoken
    STALE_ATTEMPT = auto()  # a later attempt of the step is known
    OTHER_ACTION = auto()  # the same key was used for another action
    RUN_ENDED = auto()


@dataclass(frozen=True, slots=True)
class AttemptKey:
    """One attempt at a step: what executes at most once."""

    run_id: str
    step_id: str
    attempt: int


@dataclass(frozen=True, slots=True, order=True)
class Fence:
    """The right of a run's owner to ask; a greater one voids a lesser."""

    log_generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an attempt. `outcome` is a serialized Outcome, `effect_class` a number of the contract."""

    key: AttemptKey
    fence: Fence
    action_digest: str
    effect_class: int
    state: State
    outcome: bytes | None
    begun_ms: int
    done_ms: int | None


@dataclass(frozen=True, slots=True)
class Begun:
    """It is journalled; now, and only now, it may execute."""

    record: Record


@dataclass(frozen=True, slots=True)
class Known:
    """It was known before; the record is the answer."""

    record: Record


@dataclass(frozen=True, slots=True)
class Refused:
    """It may not begin, and nothing was written; `record` is what is known under the same key."""

    reason: Refusal
    record: Record | None = None
