"""What a person tells a run: durable, applied once, and in force from its commit on."""

from __future__ import annotations

from dataclasses import dataclass

from control.journal.approval import ApprovalDecision


@dataclass(frozen=True, slots=True)
class Command:
    """A command under the client's own id; sending it again changes nothing. `decision` answers an approval with it."""

    cmd_id: str
    run_id: str
    tenant: str
    kind: str
    actor: str
    payload: bytes = b""
    decision: ApprovalDecision | None = None


@dataclass(frozen=True, slots=True)
class CommandReceipt:
    """The command is durable: no intent with a lower control_gen can commit any more."""

    cmd_id: str
    run_id: str
    control_gen: int
    created_ms: int
    replayed: bool


@dataclass(frozen=True, slots=True)
class StoredCommand:
    """A command as the journal has it; `applied_seq` is the head of the run after the append that applied it."""

    cmd_id: str
    run_id: str
    kind: str
    actor: str
    payload: bytes
    created_ms: int
    control_gen: int
    applied_seq: int | None
    decision: ApprovalDecision | None
