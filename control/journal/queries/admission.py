"""Which of the runs that nobody has begun may be claimed, where tenants have a limit."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, exists, false, func, or_, select

from control.core.fairness import Admission, Queued
from control.journal.schema import run_commands, runs

_ADMITTING = 0x5C7AD31
"""Key of the advisory lock under which one process at a time lets runs begin."""


def admitted(
    connection: Connection, admission: Admission, fold_version: int, free: ColumnElement[bool], limit: int
) -> ColumnElement[bool]:
    """What may be claimed: whatever has begun before, what there is room for, and what is only to be cancelled."""
    told = exists().where(
        run_commands.c.run_id == runs.c.run_id, run_commands.c.kind == "CANCEL", run_commands.c.applied_seq.is_(None)
    )
    begun = runs.c.epoch > 0
    if not _alone(connection):
        return or_(begun, told)
    counted = select(runs.c.tenant, func.count()).where(runs.c.terminal == false(), begun).group_by(runs.c.tenant)
    active = {tenant: int(number) for tenant, number in connection.execute(counted)}
    place = func.row_number().over(partition_by=runs.c.tenant, order_by=runs.c.run_id).label("place")
    waiting = (
        select(runs.c.run_id, runs.c.tenant, place)
        .where(runs.c.terminal == false(), runs.c.epoch == 0, runs.c.fold_version <= fold_version, free)
        .subquery()
    )
    oldest = select(waiting.c.run_id, waiting.c.tenant).where(waiting.c.place <= limit).order_by(waiting.c.run_id)
    queued = [Queued(run_id, tenant) for run_id, tenant in connection.execute(oldest)]
    return or_(begun, told, runs.c.run_id.in_(admission.admitted(queued, active, limit)))


def _alone(connection: Connection) -> bool:
    """Whether nobody else counts at the same time. Who does not get the lock looks again at its next poll: to wait
    for it while rows are locked could be to wait for each other.
    """
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.execute(select(func.pg_try_advisory_xact_lock(_ADMITTING))).scalar_one())
