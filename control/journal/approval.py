"""A question to a person and its one answer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class ApprovalStatus(StrEnum):
    """PENDING becomes GRANTED, DENIED or EXPIRED once; GRANTED becomes CONSUMED by the one intent it was for."""

    PENDING = "PENDING"
    GRANTED = "GRANTED"
    DENIED = "DENIED"
    EXPIRED = "EXPIRED"
    CONSUMED = "CONSUMED"


@dataclass(frozen=True, slots=True)
class ApprovalDecision:
    """An answer: GRANTED, DENIED, or EXPIRED once its time is over.

    `action_digest` is of the action that the person saw; an answer about another action is refused. Empty for EXPIRED.
    """

    approval_id: str
    status: ApprovalStatus
    note: str = ""
    action_digest: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """A question as it stands. `consumed_by` is the append_id of the intent that used it up."""

    approval_id: str
    run_id: str
    tenant: str
    step_id: str
    action_digest: str
    status: ApprovalStatus
    expires_ms: int
    requested_seq: int
    requested_ms: int
    body: bytes
    decided_by: str | None
    decided_ms: int | None
    note: str
    consumed_by: str | None


@dataclass(frozen=True, slots=True)
class ApprovalQuery:
    """Which questions of a tenant, oldest first; no statuses means all, a `page_size` of 0 the usual one."""

    tenant: str
    run_id: str | None = None
    statuses: tuple[ApprovalStatus, ...] = ()
    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class ApprovalPage:
    """Some questions, and how to ask for the next ones; an empty token ends the list."""

    approvals: tuple[Approval, ...]
    next_page_token: str
