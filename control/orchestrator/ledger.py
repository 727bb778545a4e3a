"""One run's journal in the hands of its owner: what is folded, and the only way to add to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from control.core.run import RunFold, terminal
from control.journal import (
    Append,
    ApprovalUse,
    ControlMoved,
    EventDraft,
    Journal,
    NewApproval,
    RunHead,
    Snapshot,
)
from control.journal.folding import event_of, projection
from infra.clock import Clock
from infra.ids import Ids
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

SNAPSHOT_EVERY = 500
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Also:
    """What a commit does besides adding events."""

    under_control: bool = False
    consume: ApprovalUse | None = None
    applied: tuple[str, ...] = ()
    questions: tuple[NewApproval, ...] = ()


@dataclass(slots=True)
class Ledger:
    """A run under one owner. `folded` is what is durable, except while a commit of this very ledger is under way."""

    journal: Journal
    clock: Clock
    ids: Ids
    head: RunHead
    folded: RunFold = field(default_factory=RunFold)
    outcomes: dict[int, act.Outcome] = field(default_factory=dict[int, act.Outcome])
    control_gen: int = 0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _snapshot_seq: int = 0

    @property
    def state(self) -> st.RunState:
        return self.folded.state

    @property
    def fence(self) -> wire.Fence:
        """What everything that this owner sends carries."""
        return wire.Fence(log_generation=self.head.log_generation, epoch=self.head.epoch)

    async def load(self) -> None:
        """Folds what is in the journal, from the last snapshot on."""
        snapshot = await self.journal.load_snapshot(self.head.run_id, fold_version=self.head.fold_version)
        self.folded = RunFold(st.RunState.FromString(snapshot.state) if snapshot else None)
        self._snapshot_seq = snapshot.seq if snapshot else 0
        while page := await self.journal.read(self.head.run_id, after_seq=self.state.seq, limit=_PAGE):
            for stored in page:
                self.folded.apply(event_of(stored))
        await self._load_outcomes()

    async def commit(self, events: Sequence[ev.EventBody], also: Also = Also(), *, basis: int | None = None) -> bool:
        """Adds events in one durable commit.

        Given a `basis`, the sequence number that the events were decided on, nothing is written and the answer is
        False when the run has moved since.

        Raises:
            ControlMoved: a command came in between; the state is as the journal has it.
            StaleOwner: another node owns the run now.
        """
        async with self._lock:
            if basis is not None and basis != self.state.seq:
                return False
            append = self._append(events, also)
            try:
                await self.journal.append(append)
            except ControlMoved:
                await self.load()
                raise
            await self._snapshot()
            return True

    def outcome(self, attempt: st.AttemptRecord) -> act.Outcome | None:
        """What came of an attempt, when it is still needed."""
        return self.outcomes.get(attempt.finished_seq)

    def _append(self, events: Sequence[ev.EventBody], also: Also) -> Append:
        """Folds the events first: what lists show is written in the same commit as they are."""
        now_ms, before = self.clock.now_ms(), self.state.seq
        for body in events:
            event = ev.RunEvent(run_id=self.head.run_id, seq=self.state.seq + 1, epoch=self.head.epoch, body=body)
            event.time.FromMilliseconds(now_ms)
            self.folded.apply(event)
            self._keep_outcome(event)
        return Append(
            run_id=self.head.run_id,
            epoch=self.head.epoch,
            expect_seq=before,
            events=tuple(EventDraft.of(body) for body in events),
            append_id=self.ids.ulid(),
            control_gen=self.control_gen if also.under_control else None,
            consume=also.consume,
            applied_commands=also.applied,
            new_approvals=also.questions,
            projection=projection(self.folded),
            time_ms=now_ms,
        )

    def _keep_outcome(self, event: ev.RunEvent) -> None:
        if event.body.HasField("step_finished"):
            self.outcomes[event.seq] = event.body.step_finished.outcome

    async def _load_outcomes(self) -> None:
        """Reads the outcomes that decisions may still need: all but those of records that are done with."""
        self.outcomes = {}
        for seq in self._needed():
            for stored in await self.journal.read(self.head.run_id, after_seq=seq - 1, limit=1):
                self._keep_outcome(event_of(stored))

    def _needed(self) -> Iterable[int]:
        for record in self.state.nodes:
            parent = self.folded.node(record.node.parent_id) if record.node.parent_id else None
            done = parent is not None and parent.node.group.record_key and parent.state == ev.NODE_STATE_SUCCEEDED
            if record.attempts and record.attempts[-1].finished_seq and not done:
                yield record.attempts[-1].finished_seq

    async def _snapshot(self) -> None:
        if self.state.seq - self._snapshot_seq >= SNAPSHOT_EVERY or terminal(self.state.phase):
            self._snapshot_seq = self.state.seq
            kept = self.state.SerializeToString(deterministic=True)
            await self.journal.save_snapshot(Snapshot(self.head.run_id, self.state.seq, self.head.fold_version, kept))
