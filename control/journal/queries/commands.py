"""Commands, and the approvals that they decide."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from control.journal.approval import ApprovalDecision, ApprovalStatus
from control.journal.command import Command, CommandReceipt, StoredCommand
from control.journal.errors import IdReused, RunEnded
from control.journal.queries.approvals import decide
from control.journal.queries.runs import head
from control.journal.schema import run_commands, runs


def record(connection: Connection, command: Command, now_ms: int) -> CommandReceipt:
    """Write the command, raise control_gen and decide the approval, all or nothing."""
    run = head(connection, command.run_id, command.tenant, locked=True)
    row = connection.execute(select(run_commands).where(run_commands.c.cmd_id == command.cmd_id)).one_or_none()
    if row is not None:
        return _replay(row, command)
    if run.terminal:
        raise RunEnded(command.run_id)
    if command.decision is not None:
        decide(connection, command.run_id, command.decision, command.actor, now_ms)
    control_gen = _raise_control_gen(connection, command.run_id)
    connection.execute(insert(run_commands), _row(command, control_gen, now_ms))
    return CommandReceipt(command.cmd_id, command.run_id, control_gen, now_ms, replayed=False)


def pending(connection: Connection, run_id: str) -> tuple[StoredCommand, ...]:
    """Return what is not applied yet, in the order given."""
    chosen = (
        select(run_commands)
        .where(run_commands.c.run_id == run_id, run_commands.c.applied_seq.is_(None))
        .order_by(run_commands.c.control_gen)
    )
    return tuple(_stored(row) for row in connection.execute(chosen))


def given(connection: Connection, run_id: str, kind: str) -> tuple[StoredCommand, ...]:
    """Return every command of a kind, applied or not, in the order given."""
    chosen = select(run_commands).where(run_commands.c.run_id == run_id, run_commands.c.kind == kind)
    return tuple(_stored(row) for row in connection.execute(chosen.order_by(run_commands.c.control_gen)))


def _raise_control_gen(connection: Connection, run_id: str) -> int:
    raised = (
        update(runs)
        .where(runs.c.run_id == run_id)
        .values(control_gen=runs.c.control_gen + 1)
        .returning(runs.c.control_gen)
    )
    return int(connection.execute(raised).scalar_one())


def _replay(row: Row[Any], command: Command) -> CommandReceipt:
    stored = _stored(row)
    wanted = command.decision and (command.decision.approval_id, command.decision.status)
    known = stored.decision and (stored.decision.approval_id, stored.decision.status)
    if (stored.run_id, stored.kind, stored.payload, known) != (command.run_id, command.kind, command.payload, wanted):
        raise IdReused("cmd_id", command.cmd_id)
    return CommandReceipt(stored.cmd_id, stored.run_id, stored.control_gen, stored.created_ms, replayed=True)


def _row(command: Command, control_gen: int, now_ms: int) -> dict[str, str | int | bytes | None]:
    decision = command.decision
    return {
        "cmd_id": command.cmd_id,
        "run_id": command.run_id,
        "kind": command.kind,
        "actor": command.actor,
        "payload": command.payload,
        "created_ms": now_ms,
        "control_gen": control_gen,
        "approval_id": decision and decision.approval_id,
        "decision": decision and decision.status.value,
        "note": decision and decision.note,
    }


def _stored(row: Row[Any]) -> StoredCommand:
    return StoredCommand(
        cmd_id=row.cmd_id,
        run_id=row.run_id,
        kind=row.kind,
        actor=row.actor,
        payload=row.payload,
        created_ms=row.created_ms,
        control_gen=row.control_gen,
        applied_seq=row.applied_seq,
        decision=row.decision and ApprovalDecision(row.approval_id, ApprovalStatus(row.decision), row.note),
    )
