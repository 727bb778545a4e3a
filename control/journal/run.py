"""A run as the journal knows it: who owns it, how far its events go, and what is derived from them for lists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from control.journal.command import Command
from control.journal.event import EventDraft


@dataclass(frozen=True, slots=True)
class Node:
    """A control-plane process: a name that stays and an incarnation that is new at every start."""

    node_id: str
    incarnation: str


class Pulse(NamedTuple):
    """What a node says while it lives: a number that it raises, and where other nodes and workers reach it."""

    beat: int
    address: str = ""


class Holder(NamedTuple):
    """Which node a worker is dialled into, and by the how many-th of all its streams."""

    node_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """The event of another run at which this one begins."""

    run_id: str
    seq: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class Projection:
    """What lists show of a run, derived from its events and therefore replaceable.

    `state` is what runs are filtered by. `terminal` ends claims and refuses further commands.
    """

    state: str
    body: bytes
    terminal: bool = False


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run to create. The same append_id, or the same request_id of a tenant, creates it once.

    `time_ms` is the events' time when the caller has already folded them; else the journal's clock says it.
    """

    run_id: str
    mission_id: str
    tenant: str
    fold_version: int
    events: tuple[EventDraft, ...]
    append_id: str
    request_id: str | None = None
    projection: Projection | None = None
    parent: ForkPoint | None = None
    lineage: str = ""
    """Of a fork: the first run of its lineage."""
    tells_parent: Command | None = None
    """What the parent is told by the same commit, unless it has ended; from then on it begins nothing unknowingly."""
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RunHead:
    """The counters of a run. (log_generation, epoch) is the fence of everything its owner sends."""

    run_id: str
    mission_id: str
    tenant: str
    head_seq: int
    head_hash: bytes
    epoch: int
    control_gen: int
    log_generation: int
    fold_version: int
    owner_node: str | None
    owner_incarnation: str | None
    created_ms: int
    terminal: bool


@dataclass(frozen=True, slots=True)
class RunListing:
    """A run in a list; without a projection until its first one is written or rebuilt."""

    head: RunHead
    projection: Projection | None


@dataclass(frozen=True, slots=True)
class RunQuery:
    """Which runs of a tenant, newest first; no states means all, a `page_size` of 0 the usual one."""

    tenant: str
    mission_id: str | None = None
    states: tuple[str, ...] = ()
    unended: bool = False
    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Some runs, and how to ask for the next ones; an empty token ends the list."""

    runs: tuple[RunListing, ...]
    next_page_token: str
