"""The journal of all runs, as every backend offers it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, Executable

from control.core.fairness import Admission
from control.core.lineage import Begun
from control.journal.append import Append, Appended
from control.journal.approval import Approval, ApprovalPage, ApprovalQuery
from control.journal.command import Command, CommandReceipt, StoredCommand
from control.journal.erasure import Erase, Erasure, ErasurePage, ErasureQuery
from control.journal.event import StoredEvent
from control.journal.run import Holder, NewRun, Node, Projection, Pulse, RunHead, RunListing, RunPage, RunQuery
from control.journal.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at every event of a run found: `bad_seq` is the first event that is not as it was written."""

    run_id: str
    events: int
    bad_seq: int | None = None
    reason: str = ""


Also = Callable[[Connection, Erasure, Sequence[bytes]], None]
"""What else is written in the transaction of an erasure; it is given the payloads that go."""
Named = Callable[[Connection], Iterable[bytes | None]]
"""Texts in which the digest of a blob may stand."""


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """Which blobs were removed, and whether nothing is left in free pages and logs either."""

    removed: frozenset[str]
    done: bool


@dataclass(frozen=True, slots=True)
class Archived:
    """What archiving a run came to, in bytes."""

    events: int
    journal_bytes: int
    archive_bytes: int


@dataclass(frozen=True, slots=True)
class Census:
    """What is open: runs by (tenant, state), questions by tenant, and since when the oldest question waits."""

    runs: Mapping[tuple[str, str], int]
    approvals: Mapping[str, int]
    oldest_ms: int | None


class Journal(Protocol):
    """Durable when it returns. A cancelled waiter never cancels a write. Refusals stand in control.journal.errors."""

    @property
    def shared(self) -> bool:
        """Whether several processes may write."""
        ...

    async def create_run(self, new: NewRun, *, also: Sequence[Executable] = ()) -> RunHead:
        """Create a run together with `also`, statements on the caller's own tables.

        When the append_id or the tenant's request_id is known, nothing is written and the run that exists is returned.
        """
        ...

    async def requested(self, tenant: str, request_id: str) -> RunHead | None:
        """The run that a request of a tenant has created; nothing when it has created none."""
        ...

    async def begun(self, lineage: str) -> Mapping[str, Begun]:
        """Steps that must not happen twice and that a run of a lineage has begun, by their id."""
        ...

    async def append(self, append: Append) -> Appended:
        """Add events; an append_id that is committed already returns what it wrote.

        Raises StaleOwner, ControlMoved, StaleHead, ApprovalNotUsable, CommandNotPending or BegunElsewhere: the first
        that is true.
        """
        ...

    async def command(self, command: Command) -> CommandReceipt:
        """Record a command; from then on no intent that does not know it commits.

        Raises RunNotFound, RunEnded, ApprovalNotFound, ApprovalNotPending, ApprovalMismatch or IdReused.
        """
        ...

    async def pending_commands(self, run_id: str) -> tuple[StoredCommand, ...]:
        """What has not been applied yet, in the order in which it was given."""
        ...

    async def commands(self, run_id: str, *, kind: str) -> tuple[StoredCommand, ...]:
        """Every command of a kind that a run was given, applied or not, in the order in which it was given."""
        ...

    async def claim(
        self,
        node: Node,
        *,
        fold_version: int,
        limit: int,
        dead: Collection[Node] = (),
        admission: Admission | None = None,
    ) -> tuple[RunHead, ...]:
        """Own runs that have no living owner and whose fold this node knows, oldest first, each under a new epoch.

        The claim raises a run's fold_version to the node's own: no older node takes back what this one writes.

        A node is dead when it left, was replaced, or is among `dead` (see `beats`). Where one process alone can write,
        every other one is. Runs that the node owns already may be among the answer.
        """
        ...

    async def queued(self, *, limit: int) -> tuple[RunListing, ...]:
        """Runs that nobody has begun, oldest first."""
        ...

    async def release(self, run_id: str, epoch: int) -> None:
        """Give a run up, for instance at a planned drain, so that another node may claim it at once."""
        ...

    async def beat(self, node: Node, *, last: int = 0, address: str = "") -> int:
        """Say that the node lives, and where; returns its new beat, which is `last` of the next.

        The first beat of an incarnation replaces the one before; that one's next raises NodeReplaced.
        """
        ...

    async def leave(self, node: Node) -> None:
        """Say that the node ends: what it still owns is free."""
        ...

    async def beats(self) -> Mapping[Node, Pulse]:
        """The beat and the address of every node. One whose beat does not rise any more is dead."""
        ...

    async def take_stream(self, worker_id: str, incarnation: str, node: Node) -> int:
        """Make the node the holder of a worker's stream; returns its generation, which overtakes all before."""
        ...

    async def end_stream(self, worker_id: str, generation: int) -> None:
        """Say that this stream of a worker has ended; a later one is not concerned."""
        ...

    async def streams(self, worker_ids: Collection[str]) -> Mapping[str, Holder]:
        """Who holds the present stream of each of these workers that has ever dialled; nobody is an empty node id."""
        ...

    async def head(self, run_id: str, *, tenant: str | None = None) -> RunHead:
        """The counters of a run. Raises RunNotFound, also for another tenant's run when `tenant` is given."""
        ...

    async def listing(self, run_id: str, *, tenant: str) -> RunListing:
        """One run as a list shows it. Raises RunNotFound."""
        ...

    async def runs(self, query: RunQuery) -> RunPage:
        """Runs of a tenant, newest first."""
        ...

    async def read(self, run_id: str, *, after_seq: int = 0, limit: int = 1000) -> tuple[StoredEvent, ...]:
        """Events after `after_seq` in order."""
        ...

    def tail(self, run_id: str, *, after_seq: int = 0) -> AsyncGenerator[StoredEvent]:
        """Events after `after_seq` and then every new one, without a gap. Does not end by itself: aclose() it."""
        ...

    def wakes(self) -> AsyncGenerator[str]:
        """Ids of runs that were created, commanded, released or ended since the iteration began, coalesced.

        A hint: whoever loses one finds the run at its next poll.
        """
        ...

    async def approval(self, approval_id: str, *, tenant: str | None = None) -> Approval:
        """One question. Raises ApprovalNotFound, also for another tenant's when `tenant` is given."""
        ...

    async def approvals(self, query: ApprovalQuery) -> ApprovalPage:
        """Questions of a tenant, oldest first."""
        ...

    async def due_approvals(self, *, limit: int = 100) -> tuple[Approval, ...]:
        """Open questions whose time is over; send each a command with the decision EXPIRED."""
        ...

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep a folded state; an older one than is kept changes nothing."""
        ...

    async def load_snapshot(self, run_id: str, *, fold_version: int) -> Snapshot | None:
        """The kept state, or None when there is none by this fold or its bytes are not what was kept."""
        ...

    async def save_projection(self, run_id: str, seq: int, projection: Projection) -> None:
        """Put back what lists show of a run, folded up to `seq`; an older one than is kept changes nothing."""
        ...

    async def drop_projections(self) -> None:
        """Forget everything that can be made again from the events."""
        ...

    async def archive(self, run_id: str) -> Archived:
        """Move the events of a run that has ended into a file. Raises RunNotFound or RunNotEnded."""
        ...

    async def archivable(self, *, before_ms: int, limit: int) -> Sequence[str]:
        """Runs that ended before a moment and are not archived, oldest first."""
        ...

    async def erase(self, erase: Erase, *, also: Also | None = None) -> Erasure:
        """Remove payloads for good, and whatever was derived from them, together with `also`. The chain still holds.

        Raises RunNotFound, RunNotEnded or RunHasForks.
        """
        ...

    async def erasure(self, run_id: str) -> Erasure | None:
        """The last erasure of a run."""
        ...

    async def erasures(self, query: ErasureQuery) -> ErasurePage:
        """Erasures of a tenant, newest first."""
        ...

    async def unscrubbed(self) -> Sequence[Erasure]:
        """Erasures of which something may be left in files or free pages."""
        ...

    async def scrub(self, some: Sequence[Erasure], *, named: Named) -> Scrubbed:
        """Remove blobs that only these named, and overwrite what the database has freed.

        `named` yields everything else in the database that may name a blob.
        """
        ...

    async def mission_erasure(self, mission_id: str, *, tenant: str) -> Erasure | None:
        """The last erasure of a run of a mission."""
        ...

    async def verify(self, run_id: str) -> Verification:
        """Look at every event of a run for a change. Raises RunNotFound."""
        ...

    async def heads(self, *, after: str = "", limit: int = 1000) -> tuple[RunHead, ...]:
        """Runs of every tenant after a run id, oldest first; for audits and rebuilds."""
        ...

    async def probe(self) -> None:
        """Write something durable that means nothing. Raises what any other write would."""
        ...

    async def census(self) -> Census:
        """How many runs and questions are open, by tenant."""
        ...

    async def log_generation(self) -> int:
        """Raised by every restore; ordered above epochs."""
        ...

    async def begin_generation(self) -> int:
        """Start a new one, after a restore or promotion; every run must be claimed again."""
        ...
