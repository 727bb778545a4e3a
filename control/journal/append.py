"""What the owner of a run adds to it in one commit."""

from __future__ import annotations

from dataclasses import dataclass

from control.core.lineage import Begun
from control.journal.event import EventDraft
from control.journal.run import Projection


@dataclass(frozen=True, slots=True)
class NewApproval:
    """A question to a person, opened by the same commit as the event that asks. `body` is opaque: what to show."""

    approval_id: str
    step_id: str
    action_digest: str
    expires_ms: int
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class ApprovalUse:
    """The granted approval that this commit uses up, and the digest of the action that is about to be assigned."""

    approval_id: str
    action_digest: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A step that must not happen twice in a lineage, and that this commit begins.

    `over` is what the run knows was begun of it last by another run, and has found to have come to nothing.
    """

    lineage: str
    step_id: str
    over: Begun | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A step of a lineage whose open attempt ends with this commit; `nothing`: it certainly did nothing."""

    lineage: str
    step_id: str
    nothing: bool


@dataclass(frozen=True, slots=True)
class Append:
    """Events after `expect_seq`, by the owner of `epoch`.

    `control_gen` is given for intents and attempts, so that they lose against a command; results leave it None.
    The same append_id is written once: append the same object again when its outcome is unknown. `time_ms` is the
    owner's own clock, so that it can fold its events before they are durable; None takes the journal's.
    """

    run_id: str
    epoch: int
    expect_seq: int
    events: tuple[EventDraft, ...]
    append_id: str
    control_gen: int | None = None
    consume: ApprovalUse | None = None
    applied_commands: tuple[str, ...] = ()
    new_approvals: tuple[NewApproval, ...] = ()
    claims: tuple[Claim, ...] = ()
    releases: tuple[Release, ...] = ()
    projection: Projection | None = None
    time_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Appended:
    """Where the last event of an append stands in the journal."""

    seq: int
    hash: bytes
    time_ms: int
