"""What is derived from one run's events, made again from nothing but them: on a bare connection, for a rebuild."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

from sqlalchemy import Connection, update

from control.core.run import RunFold, terminal
from control.journal.archive import NO_ARCHIVES, Archives
from control.journal.erasure import Erasure, shown
from control.journal.event import StoredEvent
from control.journal.folding import event_of, projection, require_foldable
from control.journal.queries import events
from control.journal.queries.projections import forget_derived, put_projection, save_snapshot
from control.journal.run import RunHead
from control.journal.schema import runs
from control.journal.snapshot import Snapshot, due
from infra.errors import DataLoss
from skyagent.run.v1 import event_pb2 as ev


@dataclass(frozen=True, slots=True)
class Refolded:
    """A run at its head, and the snapshot that belongs to it."""

    head: RunHead
    folded: RunFold
    snapshot: Snapshot | None

    @property
    def tenant(self) -> str:
        """Whose it is, as its first event says; as its row does, when that was erased."""
        return self.folded.state.tenant or self.head.tenant


def refold(
    connection: Connection,
    head: RunHead,
    kept_seq: int | None,
    see: Callable[[ev.EventBody], None],
    archives: Archives = NO_ARCHIVES,
) -> Refolded:
    """Folds a run that verifies, and shows each of its events to `see`.

    The snapshot is made at `kept_seq`, where one stood; without one, where the run's owner would have kept it.

    Raises:
        FoldTooNew: the run was written by a newer program.
        DataLoss: its journal is not as it was written, or cannot be folded.
    """
    require_foldable(head)
    _require_intact(connection, head, archives)
    wherever_due = kept_seq is None or not 0 < kept_seq <= head.head_seq
    folded, kept = RunFold(), None
    for commit in _commits(connection, head.run_id, archives):
        for stored in commit:
            event = event_of(stored)
            folded.apply(event)
            see(event.body)
            if stored.seq == kept_seq:
                kept = _snapshot(head, folded)
        if wherever_due and due(folded.state.seq, kept.seq if kept else 0, ended=terminal(folded.state.phase)):
            kept = _snapshot(head, folded)
    return Refolded(head, folded, kept)


def rewrite(connection: Connection, refolded: Refolded) -> None:
    """Puts what was derived from a run in the place of whatever is there."""
    head, state = refolded.head, refolded.folded.state
    forget_derived(connection, head.run_id)
    put_projection(connection, head.run_id, state.seq, projection(refolded.folded))
    if refolded.snapshot is not None:
        save_snapshot(connection, refolded.snapshot)
    if state.mission_id:  # else the event that says it was erased
        said = {"mission_id": state.mission_id, "tenant": state.tenant, "fold_version": state.fold_version}
        said["created_ms"] = state.create_time.ToMilliseconds()
        connection.execute(update(runs).where(runs.c.run_id == head.run_id).values(said))


def look_at(
    connection: Connection, head: RunHead, see: Callable[[ev.EventBody], None], archives: Archives = NO_ARCHIVES
) -> None:
    """Shows what is left of a run of which something was erased. Raises DataLoss as `refold` does."""
    _require_intact(connection, head, archives)
    for stored in events.all_of(connection, head.run_id, archives):
        see(event_of(stored).body)


def rewrite_erased(connection: Connection, head: RunHead, erasure: Erasure) -> None:
    """The same for a run of which something was erased: how it ended, and that."""
    forget_derived(connection, head.run_id)
    put_projection(connection, head.run_id, head.head_seq, shown(head, erasure))


def _require_intact(connection: Connection, head: RunHead, archives: Archives) -> None:
    found = events.verify(connection, head.run_id, archives)
    if found.bad_seq is not None:
        raise DataLoss("JOURNAL_ALTERED", found.reason)


def _commits(connection: Connection, run_id: str, archives: Archives) -> Iterator[Iterator[StoredEvent]]:
    """The events of a run, those of one commit together."""
    return (
        commit
        for _, commit in groupby(events.all_of(connection, run_id, archives), key=lambda stored: stored.append_id)
    )


def _snapshot(head: RunHead, folded: RunFold) -> Snapshot:
    kept = folded.state.SerializeToString(deterministic=True)
    return Snapshot(head.run_id, folded.state.seq, folded.state.fold_version or head.fold_version, kept)
