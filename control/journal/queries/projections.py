"""What can be made again from the events: the rows behind lists, and snapshots."""

from __future__ import annotations

from sqlalchemy import Connection, delete, insert, select, update

from control.journal.run import Projection
from control.journal.schema import run_projections, runs, snapshots
from control.journal.snapshot import Snapshot
from infra.digest import digest_of


def put_projection(connection: Connection, run_id: str, seq: int, projection: Projection) -> None:
    """Keep the projection unless a later one is there."""
    known = select(run_projections.c.seq).where(run_projections.c.run_id == run_id)
    kept = connection.execute(known).scalar_one_or_none()
    if kept is not None and kept > seq:
        return
    if kept is not None:
        connection.execute(delete(run_projections).where(run_projections.c.run_id == run_id))
    values = {"run_id": run_id, "seq": seq, "state": projection.state, "body": projection.body}
    connection.execute(insert(run_projections), values)
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(terminal=projection.terminal))


def drop_projections(connection: Connection) -> None:
    """Forget what was derived from every run's events."""
    connection.execute(delete(run_projections))
    connection.execute(delete(snapshots))


def forget_derived(connection: Connection, run_id: str) -> None:
    """Drop what was derived from one run's events."""
    connection.execute(delete(run_projections).where(run_projections.c.run_id == run_id))
    connection.execute(delete(snapshots).where(snapshots.c.run_id == run_id))


def save_snapshot(connection: Connection, snapshot: Snapshot) -> None:
    """Keep the snapshot unless a later one, or one by a newer fold, is there."""
    known = select(snapshots.c.seq, snapshots.c.fold_version).where(snapshots.c.run_id == snapshot.run_id)
    row = connection.execute(known).one_or_none()
    if row is not None and (row.fold_version, row.seq) > (snapshot.fold_version, snapshot.seq):
        return
    connection.execute(delete(snapshots).where(snapshots.c.run_id == snapshot.run_id))
    values = {
        "run_id": snapshot.run_id,
        "seq": snapshot.seq,
        "fold_version": snapshot.fold_version,
        "state": snapshot.state,
        "digest": digest_of(snapshot.state),
    }
    connection.execute(insert(snapshots), values)


def load_snapshot(connection: Connection, run_id: str, fold_version: int) -> Snapshot | None:
    """Return None when the kept state is by another fold, or damaged."""
    chosen = select(snapshots).where(snapshots.c.run_id == run_id, snapshots.c.fold_version == fold_version)
    row = connection.execute(chosen).one_or_none()
    if row is None or digest_of(row.state) != row.digest:
        return None
    return Snapshot(row.run_id, row.seq, row.fold_version, row.state)
