"""Why the journal refuses."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.lineage import Begun
from control.journal.approval import ApprovalStatus
from infra.errors import AlreadyExists, Conflict, NotFound, Precondition


class StaleOwner(Conflict):
    """Another owner has claimed the run: stop driving it. `epoch` is the present one."""

    def __init__(self, run_id: str, epoch: int, current: int) -> None:
        super().__init__(
            "STALE_OWNER",
            f"run {run_id} is owned under epoch {current}, not {epoch}: stop driving it, its new owner goes on",
            run_id=run_id,
            epoch=str(current),
        )
        self.epoch = current


class NodeReplaced(Conflict):
    """Another process has begun to act under this node's id."""

    def __init__(self, node_id: str) -> None:
        super().__init__(
            "NODE_REPLACED",
            f"another process acts as node {node_id!r} on this database: give each its own SKYAGENT_NODE_ID",
            node_id=node_id,
        )


class ControlMoved(Conflict):
    """A command came in between: apply it, then decide again. `control_gen` is the present one."""

    def __init__(self, run_id: str, control_gen: int, current: int) -> None:
        super().__init__(
            "CONTROL_MOVED",
            f"run {run_id} has commands up to {current}, this intent knew only {control_gen}: apply them first",
            run_id=run_id,
            control_gen=str(current),
        )
        self.control_gen = current


class StaleHead(Conflict):
    """The run has other events than its writer believed: read them and decide again. `head_seq` is the present one."""

    def __init__(self, run_id: str, expected: int, current: int) -> None:
        super().__init__(
            "STALE_HEAD",
            f"run {run_id} ends at event {current}, not {expected}: read the events between and decide again",
            run_id=run_id,
            head_seq=str(current),
        )
        self.head_seq = current


class ApprovalNotUsable(Precondition):
    """The approval is not granted, is used up, or is for another action."""

    def __init__(self, approval_id: str, why: str) -> None:
        super().__init__(
            "APPROVAL_NOT_USABLE",
            f"approval {approval_id} cannot be used: {why}. Ask for a new one",
            approval_id=approval_id,
        )


class ApprovalNotPending(Precondition):
    """The question is answered, expired, or not expired yet. `status` says how it stands."""

    def __init__(self, approval_id: str, status: ApprovalStatus, why: str) -> None:
        super().__init__(
            "APPROVAL_NOT_PENDING", f"approval {approval_id} {why}", approval_id=approval_id, status=status.value
        )
        self.status = status


class ApprovalMismatch(Precondition):
    """The person saw another action than the one that is asked about."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(
            "APPROVAL_MISMATCH",
            f"approval {approval_id} is about another action than the one answered: look at it again",
            approval_id=approval_id,
        )


class CommandNotPending(Precondition):
    """The command is unknown to this run, or has been applied."""

    def __init__(self, run_id: str, cmd_id: str) -> None:
        super().__init__(
            "COMMAND_NOT_PENDING",
            f"command {cmd_id} of run {run_id} is unknown or was applied already: read the pending ones again",
            run_id=run_id,
            cmd_id=cmd_id,
        )


class BegunElsewhere(Conflict):
    """Another run of the lineage has begun a step that must not happen twice. `begun` is what it began last."""

    def __init__(self, step_id: str, begun: Begun) -> None:
        standing = "is doing" if begun.open else "has begun"
        super().__init__(
            "BEGUN_ELSEWHERE",
            f"run {begun.run_id} of the same lineage {standing} step {step_id}: find out what came of it, then go on",
            step_id=step_id,
            run_id=begun.run_id,
        )
        self.step_id, self.begun = step_id, begun


class RunEnded(Precondition):
    """The run is over and takes no commands."""

    def __init__(self, run_id: str) -> None:
        super().__init__("RUN_ENDED", f"run {run_id} has ended and takes no commands: start another one", run_id=run_id)


class FoldTooNew(Precondition):
    """A newer program writes this run: what this one would make of its events could be false."""

    def __init__(self, run_id: str, written: int, known: int) -> None:
        super().__init__(
            "FOLD_TOO_NEW",
            f"run {run_id} needs a newer node: it was written for fold {written}, this one has fold {known}. Ask a node"
            " of the newer version, or bring this one to it",
            run_id=run_id,
            fold_version=str(written),
        )


class CommandTooNew(Precondition):
    """A newer node took a command that this one does not know; it stays pending, and nothing starts before it."""

    def __init__(self, run_id: str, cmd_id: str, kind: str) -> None:
        super().__init__(
            "COMMAND_TOO_NEW",
            f"run {run_id} needs a newer node: its command {cmd_id} ({kind}) is unknown here and waits for the newer"
            " version that took it",
            run_id=run_id,
            cmd_id=cmd_id,
        )


class RunHasForks(Precondition):
    """Runs that were forked from it hold what it said, too."""

    def __init__(self, run_id: str, forks: Sequence[str]) -> None:
        super().__init__(
            "RUN_HAS_FORKS",
            f"runs that were forked from {run_id} hold what it said, too: erase {', '.join(forks)} first",
            run_id=run_id,
        )


class RunNotFound(NotFound):
    """No such run, or another tenant's."""

    def __init__(self, run_id: str) -> None:
        super().__init__(
            "RUN_NOT_FOUND", f"run {run_id!r} does not exist; list runs with `skyagent runs ls`", run_id=run_id
        )


class ApprovalNotFound(NotFound):
    """No such approval, or another tenant's."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(
            "APPROVAL_NOT_FOUND",
            f"approval {approval_id!r} does not exist; list approvals with `skyagent approvals ls`",
            approval_id=approval_id,
        )


class IdReused(AlreadyExists):
    """An id that must be new names something else already."""

    def __init__(self, what: str, value: str) -> None:
        super().__init__("ID_REUSED", f"{what} {value!r} was used for something else: make a new one", **{what: value})
