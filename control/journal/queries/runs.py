"""Runs: creating, claiming, listing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Column, Connection, Executable, Row, Select, delete, false, insert, or_, select, update

from control.journal.chain import event_hash, first_link, fork_link, payload_digest
from control.journal.errors import IdReused, RunNotFound
from control.journal.queries.page import page_limit
from control.journal.queries.projections import put_projection
from control.journal.run import NewRun, Node, Projection, RunHead, RunListing, RunPage, RunQuery
from control.journal.schema import LOG_GENERATION, journal_meta, nodes, run_events, run_projections, runs
from infra.errors import Precondition

_EventRow = dict[str, str | int | bytes]

_HEAD: tuple[Column[Any], ...] = (
    runs.c.run_id,
    runs.c.mission_id,
    runs.c.tenant,
    runs.c.head_seq,
    runs.c.head_hash,
    runs.c.epoch,
    runs.c.control_gen,
    runs.c.log_generation,
    runs.c.fold_version,
    runs.c.owner_node,
    runs.c.owner_incarnation,
    runs.c.created_ms,
    runs.c.terminal,
)


def create_run(connection: Connection, new: NewRun, also: Sequence[Executable], now_ms: int) -> tuple[RunHead, bool]:
    """The head of the run, and whether it was created now."""
    known = _known(connection, new)
    if known is not None:
        return known, False
    for statement in also:
        connection.execute(statement)
    events, head_hash = _first_events(new, _first_link(connection, new), now_ms)
    created = _new_head(connection, new, head_hash, now_ms)
    connection.execute(insert(runs), asdict(created) | _only_stored(new))
    connection.execute(insert(run_events), events)
    if new.projection is not None:
        put_projection(connection, new.run_id, len(events), new.projection)
    return created, True


def claim(connection: Connection, node: Node, fold_version: int, limit: int) -> tuple[RunHead, ...]:
    """On SQLite the lock on the database proves that any other owner is dead: whatever is not ours is free."""
    free = (
        select(runs.c.run_id)
        .where(
            runs.c.terminal == false(),
            runs.c.fold_version <= fold_version,
            or_(
                runs.c.owner_node.is_distinct_from(node.node_id),
                runs.c.owner_incarnation.is_distinct_from(node.incarnation),
            ),
        )
        .order_by(runs.c.run_id)
        .limit(limit)
    )
    taken = (
        update(runs)
        .where(runs.c.run_id.in_(free))
        .values(
            epoch=runs.c.epoch + 1,
            owner_node=node.node_id,
            owner_incarnation=node.incarnation,
            log_generation=log_generation(connection),
        )
        .returning(*_HEAD)
    )
    claimed = [_head_of(row) for row in connection.execute(taken)]
    return tuple(sorted(claimed, key=lambda run: run.run_id))


def release(connection: Connection, run_id: str, epoch: int) -> bool:
    """Whether the run was still owned under that epoch."""
    given_up = (
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.epoch == epoch)
        .values(owner_node=None, owner_incarnation=None)
    )
    return connection.execute(given_up).rowcount == 1


def beat(connection: Connection, node: Node) -> int:
    """Raise the beat of a node, known or new."""
    raised = (
        update(nodes)
        .where(nodes.c.node_id == node.node_id)
        .values(incarnation=node.incarnation, beat=nodes.c.beat + 1)
        .returning(nodes.c.beat)
    )
    known = connection.execute(raised).scalar_one_or_none()
    if known is not None:
        return int(known)
    connection.execute(insert(nodes).values(node_id=node.node_id, incarnation=node.incarnation, beat=1))
    return 1


def head(connection: Connection, run_id: str, tenant: str | None) -> RunHead:
    """Raise RunNotFound when it does not exist, or not for that tenant."""
    chosen = select(*_HEAD).where(runs.c.run_id == run_id)
    if tenant is not None:
        chosen = chosen.where(runs.c.tenant == tenant)
    row = connection.execute(chosen).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    return _head_of(row)


def listing(connection: Connection, run_id: str, tenant: str) -> RunListing:
    """Raise RunNotFound when it does not exist for that tenant."""
    row = connection.execute(_listed(tenant).where(runs.c.run_id == run_id)).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    return _listing_of(row)


def list_runs(connection: Connection, query: RunQuery) -> RunPage:
    """Newest first."""
    limit = page_limit(query.page_size)
    chosen = _listed(query.tenant).order_by(runs.c.run_id.desc()).limit(limit + 1)
    if query.mission_id is not None:
        chosen = chosen.where(runs.c.mission_id == query.mission_id)
    if query.states:
        chosen = chosen.where(run_projections.c.state.in_(query.states))
    if query.page_token:
        chosen = chosen.where(runs.c.run_id < query.page_token)
    found = tuple(_listing_of(row) for row in connection.execute(chosen))
    return RunPage(found[:limit], found[limit - 1].head.run_id if len(found) > limit else "")


def heads(connection: Connection, after: str, limit: int) -> tuple[RunHead, ...]:
    """Of every tenant, oldest first."""
    chosen = select(*_HEAD).where(runs.c.run_id > after).order_by(runs.c.run_id).limit(limit)
    return tuple(_head_of(row) for row in connection.execute(chosen))


def log_generation(connection: Connection) -> int:
    """Return the present one."""
    chosen = select(journal_meta.c.value).where(journal_meta.c.name == LOG_GENERATION)
    return int(connection.execute(chosen).scalar_one())


def begin_generation(connection: Connection) -> int:
    """Raise it; nobody owns a run any more."""
    raised = (
        update(journal_meta)
        .where(journal_meta.c.name == LOG_GENERATION)
        .values(value=journal_meta.c.value + 1)
        .returning(journal_meta.c.value)
    )
    generation = int(connection.execute(raised).scalar_one())
    connection.execute(update(runs).values(owner_node=None, owner_incarnation=None))
    connection.execute(delete(nodes))
    return generation


def _known(connection: Connection, new: NewRun) -> RunHead | None:
    first = select(run_events.c.append_id).where(run_events.c.run_id == new.run_id, run_events.c.seq == 1)
    append_id = connection.execute(first).scalar_one_or_none()
    if append_id is not None:
        if append_id != new.append_id:
            raise IdReused("run_id", new.run_id)
        return head(connection, new.run_id, new.tenant)
    if new.request_id is None:
        return None
    same = select(*_HEAD).where(runs.c.tenant == new.tenant, runs.c.request_id == new.request_id)
    row = connection.execute(same).one_or_none()
    return None if row is None else _head_of(row)


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


def _listed(tenant: str) -> Select[*tuple[Any, ...]]:
    return (
        select(*_HEAD, run_projections.c.state, run_projections.c.body)
        .outerjoin(run_projections, run_projections.c.run_id == runs.c.run_id)
        .where(runs.c.tenant == tenant)
    )


def _head_of(row: Row[*tuple[Any, ...]]) -> RunHead:
    return RunHead(*row[: len(_HEAD)])


def _listing_of(row: Row[*tuple[Any, ...]]) -> RunListing:
    run = _head_of(row)
    state, body = row[len(_HEAD) :]
    return RunListing(run, None if state is None else Projection(state, body, run.terminal))
