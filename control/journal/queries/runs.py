"""Runs: claiming, listing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    Select,
    delete,
    exists,
    false,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from control.journal.errors import NodeReplaced, RunNotFound
from control.journal.queries.page import page_limit
from control.journal.run import Node, Projection, Pulse, RunHead, RunListing, RunPage, RunQuery
from control.journal.schema import LOG_GENERATION, PROBED_MS, journal_meta, nodes, run_projections, runs
from infra.db import insert_absent

HEAD: tuple[Column[Any], ...] = (
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

_GENERATION = select(journal_meta.c.value).where(journal_meta.c.name == LOG_GENERATION)


def not_owned_by(node: Node) -> ColumnElement[bool]:
    """What others own, or nobody; where one process alone can write, its lock proves that those are dead."""
    return or_(
        runs.c.owner_node.is_distinct_from(node.node_id), runs.c.owner_incarnation.is_distinct_from(node.incarnation)
    )


def left_by(dead: Collection[Node]) -> ColumnElement[bool]:
    """What has no owner, or one that left, was replaced, or is dead."""
    owner = tuple_(runs.c.owner_node, runs.c.owner_incarnation)
    present = exists().where(nodes.c.node_id == runs.c.owner_node, nodes.c.incarnation == runs.c.owner_incarnation)
    gone = [(node.node_id, node.incarnation) for node in dead]
    return or_(runs.c.owner_node.is_(None), ~present, owner.in_(gone) if gone else false())


def claim(
    connection: Connection, node: Node, fold_version: int, limit: int, free: ColumnElement[bool]
) -> tuple[RunHead, ...]:
    """Own what is free, each run under its next epoch; from then on only nodes that know `fold_version` may."""
    chosen = (
        select(runs.c.run_id)
        .where(runs.c.terminal == false(), runs.c.fold_version <= fold_version, free)
        .order_by(runs.c.run_id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    taken = (
        update(runs)
        .where(runs.c.run_id.in_(chosen))
        .values(
            epoch=runs.c.epoch + 1,
            fold_version=fold_version,
            owner_node=node.node_id,
            owner_incarnation=node.incarnation,
            log_generation=log_generation(connection),
        )
        .returning(*HEAD)
    )
    claimed = [head_of(row) for row in connection.execute(taken)]
    return tuple(sorted(claimed, key=lambda run: run.run_id))


def queued(connection: Connection, limit: int) -> tuple[RunListing, ...]:
    """Of every tenant, oldest first."""
    chosen = _shown().where(runs.c.terminal == false(), runs.c.epoch == 0).order_by(runs.c.run_id).limit(limit)
    return tuple(_listing_of(row) for row in connection.execute(chosen))


def release(connection: Connection, run_id: str, epoch: int) -> bool:
    """Whether the run was still owned under that epoch."""
    given_up = (
        update(runs)
        .where(runs.c.run_id == run_id, runs.c.epoch == epoch)
        .values(owner_node=None, owner_incarnation=None)
    )
    return connection.execute(given_up).rowcount == 1


def owned_by(connection: Connection, node: Node) -> tuple[RunHead, ...]:
    """What a node owns already."""
    mine = select(*HEAD).where(runs.c.terminal == false(), ~not_owned_by(node)).order_by(runs.c.run_id)
    return tuple(head_of(row) for row in connection.execute(mine))


def beat(connection: Connection, node: Node, last: int, address: str) -> int:
    """Raise the beat of a node, known or new. Raise NodeReplaced."""
    chosen = select(nodes.c.incarnation, nodes.c.beat).where(nodes.c.node_id == node.node_id).with_for_update()
    known = connection.execute(chosen).one_or_none()
    if known is None:
        new = {"node_id": node.node_id, "incarnation": node.incarnation, "beat": last + 1, "address": address}
        connection.execute(insert(nodes).values(new))
        return last + 1
    if last and known.incarnation != node.incarnation:
        raise NodeReplaced(node.node_id)
    raised = update(nodes).where(nodes.c.node_id == node.node_id)
    connection.execute(raised.values(incarnation=node.incarnation, beat=known.beat + 1, address=address))
    return int(known.beat) + 1


def leave(connection: Connection, node: Node) -> None:
    """Forget a node that ends in order."""
    connection.execute(
        delete(nodes).where(nodes.c.node_id == node.node_id, nodes.c.incarnation == node.incarnation)
    ).close()


def beats(connection: Connection) -> Mapping[Node, Pulse]:
    """How far the beat of every node went."""
    rows = connection.execute(select(nodes.c.node_id, nodes.c.incarnation, nodes.c.beat, nodes.c.address))
    return {Node(row.node_id, row.incarnation): Pulse(int(row.beat), row.address) for row in rows}


def head(connection: Connection, run_id: str, tenant: str | None, *, locked: bool = False) -> RunHead:
    """Raise RunNotFound when it does not exist, or not for that tenant.

    Locked, it stays so until the transaction ends, where other processes could change it.
    """
    chosen = select(*HEAD).where(runs.c.run_id == run_id)
    if locked:
        chosen = chosen.with_for_update()
    if tenant is not None:
        chosen = chosen.where(runs.c.tenant == tenant)
    row = connection.execute(chosen).one_or_none()
    if row is None:
        raise RunNotFound(run_id)
    return head_of(row)


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
    if query.unended:
        chosen = chosen.where(runs.c.terminal == false())
    if query.page_token:
        chosen = chosen.where(runs.c.run_id < query.page_token)
    found = tuple(_listing_of(row) for row in connection.execute(chosen))
    return RunPage(found[:limit], found[limit - 1].head.run_id if len(found) > limit else "")


def heads(connection: Connection, after: str, limit: int) -> tuple[RunHead, ...]:
    """Of every tenant, oldest first."""
    chosen = select(*HEAD).where(runs.c.run_id > after).order_by(runs.c.run_id).limit(limit)
    return tuple(head_of(row) for row in connection.execute(chosen))


def log_generation(connection: Connection) -> int:
    """Return the present one."""
    return int(connection.execute(_GENERATION).scalar_one())


def begin_generation(connection: Connection, above: int = 0) -> int:
    """Raise it, beyond `above` too; nobody owns a run any more."""
    locked = _GENERATION.with_for_update()
    generation = max(int(connection.execute(locked).scalar_one()), above) + 1
    connection.execute(update(journal_meta).where(journal_meta.c.name == LOG_GENERATION).values(value=generation))
    connection.execute(update(runs).values(owner_node=None, owner_incarnation=None))
    connection.execute(delete(nodes))
    return generation


def probe(connection: Connection, now_ms: int) -> None:
    """Write a row that means nothing."""
    written = update(journal_meta).where(journal_meta.c.name == PROBED_MS).values(value=now_ms)
    if connection.execute(written).rowcount == 0:
        insert_absent(connection, journal_meta, [{"name": PROBED_MS, "value": now_ms}])


def open_by_state(connection: Connection) -> Mapping[tuple[str, str], int]:
    """How many runs have not ended, by tenant and state."""
    counted = (
        select(runs.c.tenant, func.coalesce(run_projections.c.state, ""), func.count())
        .outerjoin(run_projections, run_projections.c.run_id == runs.c.run_id)
        .where(runs.c.terminal == false())
        .group_by(runs.c.tenant, run_projections.c.state)
    )
    return {(tenant, state): int(number) for tenant, state, number in connection.execute(counted)}


def _listed(tenant: str) -> Select[*tuple[Any, ...]]:
    return _shown().where(runs.c.tenant == tenant)


def _shown() -> Select[*tuple[Any, ...]]:
    projected = (run_projections.c.state, run_projections.c.body)
    return select(*HEAD, *projected).outerjoin(run_projections, run_projections.c.run_id == runs.c.run_id)


def head_of(row: Row[*tuple[Any, ...]]) -> RunHead:
    """From a row that begins with the columns of HEAD."""
    return RunHead(*row[: len(HEAD)])


def _listing_of(row: Row[*tuple[Any, ...]]) -> RunListing:
    run = head_of(row)
    state, body = row[len(HEAD) :]
    return RunListing(run, None if state is None else Projection(state, body, run.terminal))
