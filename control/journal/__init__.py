"""The journal: every run's events in one hash-chained log, with who owns it and what people told it."""

from control.journal.append import Append, Appended, ApprovalUse, NewApproval
from control.journal.approval import Approval, ApprovalDecision, ApprovalPage, ApprovalQuery, ApprovalStatus
from control.journal.command import Command, CommandReceipt, StoredCommand
from control.journal.errors import (
    ApprovalMismatch,
    ApprovalNotFound,
    ApprovalNotPending,
    ApprovalNotUsable,
    CommandNotPending,
    CommandTooNew,
    ControlMoved,
    FoldTooNew,
    IdReused,
    NodeReplaced,
    RunEnded,
    RunNotFound,
    StaleHead,
    StaleOwner,
)
from control.journal.event import EventDraft, StoredEvent
from control.journal.journal import Journal, Verification
from control.journal.run import (
    ForkPoint,
    Holder,
    NewRun,
    Node,
    Projection,
    Pulse,
    RunHead,
    RunListing,
    RunPage,
    RunQuery,
)
from control.journal.snapshot import Snapshot
from control.journal.sql import SqlJournal, open_journal, shared_journal

__all__ = [
    "Append",
    "Appended",
    "Approval",
    "ApprovalDecision",
    "ApprovalMismatch",
    "ApprovalNotFound",
    "ApprovalNotPending",
    "ApprovalNotUsable",
    "ApprovalPage",
    "ApprovalQuery",
    "ApprovalStatus",
    "ApprovalUse",
    "Command",
    "CommandNotPending",
    "CommandReceipt",
    "CommandTooNew",
    "ControlMoved",
    "EventDraft",
    "FoldTooNew",
    "ForkPoint",
    "Holder",
    "IdReused",
    "Journal",
    "NewApproval",
    "NewRun",
    "Node",
    "NodeReplaced",
    "Projection",
    "Pulse",
    "RunEnded",
    "RunHead",
    "RunListing",
    "RunNotFound",
    "RunPage",
    "RunQuery",
    "Snapshot",
    "SqlJournal",
    "StaleHead",
    "StaleOwner",
    "StoredCommand",
    "StoredEvent",
    "Verification",
    "open_journal",
    "shared_journal",
]
