"""Creating a run with its first events, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

from sqlalchemy import Connection, Executable, bindparam, select

from control.journal import lineage
from control.journal.appending import INSERT_EVENT, chained
from control.journal.archive import NO_ARCHIVES, Archives
from control.journal.chain import first_link, fork_link
from control.journal.errors import IdReused
from control.journal.queries import commands
from control.journal.queries.events import hash_at
from control.journal.queries.projections import put_projection
from control.journal.queries.runs import HEAD, head, head_of
from control.journal.run import ForkPoint, NewRun, RunHead
from control.journal.schema import runs
from infra.db.driver import driver_of
from infra.errors import Precondition

# What every new run needs is said to the driver itself: SQLAlchemy takes longer with a statement than SQLite.
_FIRST_APPEND = (
    "SELECT (SELECT append_id FROM run_events WHERE run_id = ? AND seq = 1),"
    " (SELECT value FROM journal_meta WHERE name = 'log_generation')"
)
_NEW_RUN = (
    "INSERT INTO runs (run_id, mission_id, tenant, head_seq, head_hash, epoch, control_gen, log_generation,"
    " fold_version, owner_node, owner_incarnation, created_ms, terminal, request_id, parent_run_id, parent_seq,"
    " parent_hash) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_SAME_REQUEST = select(*HEAD).where(
    runs.c.tenant == bindparam("of_tenant"), runs.c.request_id == bindparam("by_request")
)


def create_run(
    connection: Connection, new: NewRun, also: Sequence[Executable], now_ms: int, archives: Archives = NO_ARCHIVES
) -> tuple[RunHead, bool]:
    """The head of the run, and whether it was created now."""
    driver = driver_of(connection)
    first_append, log_generation = driver.execute(_FIRST_APPEND, (new.run_id,)).fetchone() or (None, 0)
    known = _known(connection, first_append, new)
    if known is not None:
        return known, False
    for statement in also:
        connection.execute(statement)
    events = chained(new.run_id, new.append_id, 0, 0, new.events, _first_link(connection, new, archives), now_ms)
    created = _new_head(new, events[-1][9], log_generation, now_ms)
    driver.execute(_NEW_RUN, (*astuple(created), *_only_stored(new)))
    driver.executemany(INSERT_EVENT, events)
    if new.projection is not None:
        put_projection(connection, new.run_id, len(events), new.projection)
    if new.parent is not None:
        _join_lineage(connection, new, new.parent, now_ms, archives)
    return created, True


def _join_lineage(connection: Connection, new: NewRun, parent: ForkPoint, now_ms: int, archives: Archives) -> None:
    """Lets the parent know of its relative before it begins anything more, and the lineage of what it has begun."""
    before = head(connection, parent.run_id, new.tenant, locked=True)
    if new.tells_parent is not None and not before.terminal:
        commands.record(connection, new.tells_parent, now_ms)
    if new.lineage:
        lineage.enter(connection, new.lineage, parent.run_id, archives)


def requested(connection: Connection, tenant: str, request_id: str) -> RunHead | None:
    """The run that a request of a tenant has created."""
    row = connection.execute(_SAME_REQUEST, {"of_tenant": tenant, "by_request": request_id}).one_or_none()
    return None if row is None else head_of(row)


def _known(connection: Connection, first_append: str | None, new: NewRun) -> RunHead | None:
    if first_append is not None:
        if first_append != new.append_id:
            raise IdReused("run_id", new.run_id)
        return head(connection, new.run_id, new.tenant)
    if new.request_id is None:
        return None
    return requested(connection, new.tenant, new.request_id)


def _first_link(connection: Connection, new: NewRun, archives: Archives) -> bytes:
    parent = new.parent
    if parent is None:
        return first_link(new.run_id)
    head(connection, parent.run_id, new.tenant)
    if hash_at(connection, parent.run_id, parent.seq, archives) != parent.hash:
        raise Precondition(
            "FORK_POINT_UNKNOWN",
            f"run {parent.run_id} has no event {parent.seq} with that hash: read its events and fork from one of them",
            run_id=parent.run_id,
        )
    return fork_link(new.run_id, parent.run_id, parent.seq, parent.hash)


def _new_head(new: NewRun, head_hash: bytes, log_generation: int, now_ms: int) -> RunHead:
    return RunHead(
        run_id=new.run_id,
        mission_id=new.mission_id,
        tenant=new.tenant,
        head_seq=len(new.events),
        head_hash=head_hash,
        epoch=0,
        control_gen=0,
        log_generation=log_generation,
        fold_version=new.fold_version,
        owner_node=None,
        owner_incarnation=None,
        created_ms=now_ms,
        terminal=new.projection is not None and new.projection.terminal,
    )


def _only_stored(new: NewRun) -> tuple[str | int | bytes | None, ...]:
    """Columns of a run that nobody reads back with its head."""
    parent = new.parent
    if parent is None:
        return new.request_id, None, None, None
    return new.request_id, parent.run_id, parent.seq, parent.hash
