"""Workers' streams: which node holds the present one. The generation fences: it only ever rises."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, select, update

from control.journal.run import Holder, Node
from control.journal.schema import worker_streams
from infra.db import insert_into

_NOBODY = ""


def take(connection: Connection, worker_id: str, incarnation: str, node: Node) -> int:
    """Raise the generation of a worker's stream, known or new, in the name of a node."""
    taken = {"incarnation": incarnation, "node_id": node.node_id}
    first = insert_into(connection, worker_streams).values(worker_id=worker_id, generation=1, **taken)
    raised = first.on_conflict_do_update(
        index_elements=[worker_streams.c.worker_id],
        set_={"generation": worker_streams.c.generation + 1, **taken},
    )
    return int(connection.execute(raised.returning(worker_streams.c.generation)).scalar_one())


def end(connection: Connection, worker_id: str, generation: int) -> None:
    """Nobody holds this stream any more. The row stays, for its generation."""
    mine = (worker_streams.c.worker_id == worker_id) & (worker_streams.c.generation == generation)
    connection.execute(update(worker_streams).where(mine).values(node_id=_NOBODY)).close()


def holders(connection: Connection, worker_ids: Collection[str]) -> Mapping[str, Holder]:
    """By worker id."""
    rows = connection.execute(select(worker_streams).where(worker_streams.c.worker_id.in_(worker_ids)))
    return {row.worker_id: Holder(row.node_id, int(row.generation)) for row in rows}
