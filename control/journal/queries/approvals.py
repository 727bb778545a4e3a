"""Approvals: the one answer to each, and lists of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, select, update

from control.journal.approval import Approval, ApprovalDecision, ApprovalPage, ApprovalQuery, ApprovalStatus
from control.journal.errors import ApprovalMismatch, ApprovalNotFound, ApprovalNotPending
from control.journal.queries.page import page_limit
from control.journal.schema import approvals
from infra.errors import InvalidArgument, Violation

_ANSWERS = (ApprovalStatus.GRANTED, ApprovalStatus.DENIED, ApprovalStatus.EXPIRED)


def decide(connection: Connection, run_id: str, decision: ApprovalDecision, actor: str, now_ms: int) -> None:
    """Answer the question, or let it expire: one compare-and-set, so that whoever commits first has decided."""
    if decision.status not in _ANSWERS:
        raise InvalidArgument(Violation("decision", f"{decision.status} is no answer: give GRANTED, DENIED or EXPIRED"))
    expiring = decision.status is ApprovalStatus.EXPIRED
    answered = (
        update(approvals)
        .where(
            approvals.c.approval_id == decision.approval_id,
            approvals.c.run_id == run_id,
            approvals.c.status == ApprovalStatus.PENDING.value,
            approvals.c.expires_ms <= now_ms if expiring else approvals.c.expires_ms > now_ms,
        )
        .values(status=decision.status.value, decided_by=actor, decided_ms=now_ms, note=decision.note)
    )
    if decision.action_digest:
        answered = answered.where(approvals.c.action_digest == decision.action_digest)
    if connection.execute(answered).rowcount != 1:
        raise _why_not(connection, run_id, decision)


def find(connection: Connection, approval_id: str, tenant: str | None) -> Approval:
    """Raise ApprovalNotFound when it does not exist, or not for that tenant."""
    chosen = select(approvals).where(approvals.c.approval_id == approval_id)
    if tenant is not None:
        chosen = chosen.where(approvals.c.tenant == tenant)
    row = connection.execute(chosen).one_or_none()
    if row is None:
        raise ApprovalNotFound(approval_id)
    return _approval(row)


def list_approvals(connection: Connection, query: ApprovalQuery) -> ApprovalPage:
    """Oldest first."""
    limit = page_limit(query.page_size)
    chosen = select(approvals).where(approvals.c.tenant == query.tenant).order_by(approvals.c.approval_id)
    if query.run_id is not None:
        chosen = chosen.where(approvals.c.run_id == query.run_id)
    if query.statuses:
        chosen = chosen.where(approvals.c.status.in_([status.value for status in query.statuses]))
    if query.page_token:
        chosen = chosen.where(approvals.c.approval_id > query.page_token)
    found = tuple(_approval(row) for row in connection.execute(chosen.limit(limit + 1)))
    return ApprovalPage(found[:limit], found[limit - 1].approval_id if len(found) > limit else "")


def due(connection: Connection, now_ms: int, limit: int) -> tuple[Approval, ...]:
    """Open questions whose time is over, the longest over first."""
    chosen = (
        select(approvals)
        .where(approvals.c.status == ApprovalStatus.PENDING.value, approvals.c.expires_ms <= now_ms)
        .order_by(approvals.c.expires_ms)
        .limit(limit)
    )
    return tuple(_approval(row) for row in connection.execute(chosen))


def _why_not(connection: Connection, run_id: str, decision: ApprovalDecision) -> Exception:
    known = find(connection, decision.approval_id, None)
    if known.run_id != run_id:
        return ApprovalNotFound(decision.approval_id)
    if known.status is not ApprovalStatus.PENDING:
        return ApprovalNotPending(known.approval_id, known.status, f"was answered before: {known.status}")
    if decision.action_digest and decision.action_digest != known.action_digest:
        return ApprovalMismatch(known.approval_id)
    if decision.status is ApprovalStatus.EXPIRED:
        return ApprovalNotPending(known.approval_id, known.status, "has not expired yet")
    return ApprovalNotPending(known.approval_id, known.status, "came too late: its time was over")


def _approval(row: Row[Any]) -> Approval:
    return Approval(
        approval_id=row.approval_id,
        run_id=row.run_id,
        tenant=row.tenant,
        step_id=row.step_id,
        action_digest=row.action_digest,
        status=ApprovalStatus(row.status),
        expires_ms=row.expires_ms,
        requested_seq=row.requested_seq,
        requested_ms=row.requested_ms,
        body=row.body,
        decided_by=row.decided_by,
        decided_ms=row.decided_ms,
        note=row.note,
        consumed_by=row.consumed_by,
    )


def waiting(connection: Connection) -> tuple[Mapping[str, int], int | None]:
    """How many questions are open by tenant, and since when the oldest of them waits."""
    pending = approvals.c.status == ApprovalStatus.PENDING.value
    counted = (
        select(approvals.c.tenant, func.count(), func.min(approvals.c.requested_ms))
        .where(pending)
        .group_by(approvals.c.tenant)
    )
    rows = [(str(tenant), int(number), int(since)) for tenant, number, since in connection.execute(counted)]
    return {tenant: number for tenant, number, _ in rows}, min((since for *_, since in rows), default=None)
