"""Creating a run with its first events, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from sqlalchemy import Connection, Executable, bindparam, insert, select

from control.journal.chain import event_hash, first_link, fork_link, payload_digest
from control.journal.errors import IdReused
from control.journal.queries.projections import put_projection
from control.journal.queries.runs import HEAD, head, head_of, log_generation
from control.journal.run import NewRun, RunHead
from control.journal.schema import run_events, runs
from infra.errors import Precondition

_EventRow = dict[str, str | int | bytes]

# Built once: SQLAlchemy takes longer to build a statement than SQLite to run it.
_FIRST_APPEND = select(run_events.c.append_id).where(run_events.c.run_id == bindparam("of_run"), run_events.c.seq == 1)
_SAME_REQUEST = select(*HEAD).where(
    runs.c.tenant == bindparam("of_tenant"), runs.c.request_id == bindparam("by_request")
)
_NEW_RUN = insert(runs)
_NEW_EVENT = insert(run_events)


def create_run(connection: Connection, new: NewRun, also: Sequence[Executable], now_ms: int) -> tuple[RunHead, bool]:
    """The head of the run, and whether it was created now."""
    known = _known(connection, new)
    if known is not None:
        return known, False
    for statement in also:
        connection.execute(statement)
    events, head_hash = _first_events(new, _first_link(connection, new), now_ms)
    created = _new_head(connection, new, head_hash, now_ms)
    connection.execute(_NEW_RUN, asdict(created) | _only_stored(new))
    connection.execute(_NEW_EVENT, events)
    if new.projection is not None:
        put_projection(connection, new.run_id, len(events), new.projection)
    return created, True


def _known(connection: Connection, new: NewRun) -> RunHead | None:
    append_id = connection.execute(_FIRST_APPEND, {"of_run": new.run_id}).scalar_one_or_none()
    if append_id is not None:
        if append_id != new.append_id:
            raise IdReused("run_id", new.run_id)
        return head(connection, new.run_id, new.tenant)
    if new.request_id is None:
        return None
    asked = {"of_tenant": new.tenant, "by_request": new.request_id}
    row = connection.execute(_SAME_REQUEST, asked).one_or_none()
    return None if row is None else head_of(row)


def _first_link(connection: Connection, new: NewRun) -> bytes:
    parent = new.parent
    if parent is None:
        return first_link(new.run_id)
    there = (
        select(run_events.c.hash)
        .join(runs, runs.c.run_id == run_events.c.run_id)
        .where(run_events.c.run_id == parent.run_id, run_events.c.seq == parent.seq, runs.c.tenant == new.tenant)
    )
    if connection.execute(there).scalar_one_or_none() != parent.hash:
        raise Precondition(
            "FORK_POINT_UNKNOWN",
            f"run {parent.run_id} has no event {parent.seq} with that hash: read its events and fork from one of them",
            run_id=parent.run_id,
        )
    return fork_link(new.run_id, parent.run_id, parent.seq, parent.hash)


def _first_events(new: NewRun, link: bytes, now_ms: int) -> tuple[list[_EventRow], bytes]:
    events: list[_EventRow] = []
    for seq, draft in enumerate(new.events, start=1):
        digest = payload_digest(draft.payload)
        chained = event_hash(link, new.run_id, seq, 0, draft.kind, now_ms, new.append_id, digest)
        events.append(
            {
                "run_id": new.run_id,
                "seq": seq,
                "append_id": new.append_id,
                "epoch": 0,
                "kind": draft.kind,
                "ts_ms": now_ms,
                "payload": draft.payload,
                "payload_digest": digest,
                "prev_hash": link,
                "hash": chained,
            }
        )
        link = chained
    return events, link


def _new_head(connection: Connection, new: NewRun, head_hash: bytes, now_ms: int) -> RunHead:
    return RunHead(
        run_id=new.run_id,
        mission_id=new.mission_id,
        tenant=new.tenant,
        head_seq=len(new.events),
        head_hash=head_hash,
        epoch=0,
        control_gen=0,
        log_generation=log_generation(connection),
        fold_version=new.fold_version,
        owner_node=None,
        owner_incarnation=None,
        created_ms=now_ms,
        terminal=new.projection is not None and new.projection.terminal,
    )


def _only_stored(new: NewRun) -> dict[str, str | int | bytes | None]:
    """Columns of a run that nobody reads back with its head."""
    parent = new.parent
    return {
        "request_id": new.request_id,
        "parent_run_id": parent and parent.run_id,
        "parent_seq": parent and parent.seq,
        "parent_hash": parent and parent.hash,
    }
