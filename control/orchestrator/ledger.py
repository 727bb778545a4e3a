"""One run's journal in the hands of its owner: what is folded, and the only way to add to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

from control.core.meters import WALL_TIME, draws, meter
from control.core.moments import ms_of
from control.core.run import RunFold, outcome_in, terminal
from control.journal import (
    Append,
    ApprovalUse,
    ControlMoved,
    EventDraft,
    Journal,
    NewApproval,
    RunHead,
    Snapshot,
    StaleHead,
)
from control.journal.folding import event_of, projection, require_foldable, require_whole
from control.journal.snapshot import due
from control.orchestrator.measures import Measures
from control.orchestrator.relatives import claims_of, releases_of
from control.orchestrator.run_clock import RunClock
from infra.clock import Clock, SteadyClock
from infra.errors import SkyError
from infra.ids import Ids
from infra.log import event_logger
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

_PAGE = 1000
_OUTCOMES_KEPT = 256

log = event_logger(__name__)

Decide = Callable[[RunFold], Sequence[ev.EventBody]]


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
    """The run's own, over the one that is given."""
    ids: Ids
    head: RunHead
    folded: RunFold = field(default_factory=RunFold)
    outcomes: dict[int, act.Outcome] = field(default_factory=dict[int, act.Outcome])
    control_gen: int = 0
    durable_seq: int = 0
    """How far the journal is known to go: what is folded beyond is only about to be committed."""
    measures: Measures = field(default_factory=Measures)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _snapshot_seq: int = 0
    wall: Clock = field(init=False)
    """The machine's own, which somebody may set; `clock` is the run's from the beginning on."""
    _time: RunClock = field(init=False)

    def __post_init__(self) -> None:
        self.wall = self.clock
        self.clock = self._time = RunClock(SteadyClock(self.clock))

    @property
    def state(self) -> st.RunState:
        return self.folded.state

    @property
    def fence(self) -> wire.Fence:
        """What everything that this owner sends carries."""
        return wire.Fence(log_generation=self.head.log_generation, epoch=self.head.epoch)

    async def load(self) -> None:
        """Folds what is in the journal, from the last snapshot on.

        Raises:
            FoldTooNew: a newer program writes the run.
            DataLoss: its tail is missing.
        """
        require_foldable(self.head)
        snapshot = await self.journal.load_snapshot(self.head.run_id, fold_version=self.head.fold_version)
        state = st.RunState.FromString(snapshot.state) if snapshot else None
        if state is not None and state.spec.limits.HasField("max_wall_time") and not draws(meter(state, WALL_TIME)):
            snapshot = state = None  # it does not say how long the run stood still, and that run's time is bounded
        folded = RunFold(state)
        while page := await self.journal.read(self.head.run_id, after_seq=folded.state.seq, limit=_PAGE):
            for stored in page:
                folded.apply(event_of(stored))
        self._time.not_before(ms_of(folded.state.update_time))
        require_whole(self.head.run_id, folded.state.seq, self.head.head_seq)
        outcomes = await self._outcomes_of(folded)
        self.folded, self.outcomes, self.durable_seq = folded, outcomes, folded.state.seq
        self._snapshot_seq = snapshot.seq if snapshot else 0

    async def commit(self, events: Sequence[ev.EventBody], also: Also = Also(), *, basis: int | None = None) -> bool:
        """Adds events in one durable commit.

        Given a `basis`, the sequence number that the events were decided on, nothing is written and the answer is
        False when the run has moved since.

        Raises:
            SkyError: nothing was written, and the state is as the journal has it. StaleOwner: another node owns the run
                now. ControlMoved: a command came in between. ApprovalNotUsable, CommandNotPending: what was to be used
                up is gone. Exhausted, Unavailable: the disk is full or busy.
        """
        async with self._lock:
            if basis is not None and basis != self.state.seq:
                return False
            await self._write(events, also)
            return True

    async def commit_now(
        self, decide: Decide, also: Also = Also(), *, follow: Decide | None = None, begin: Decide | None = None
    ) -> bool:
        """Adds what is decided on the state as it is at that moment; with no events nothing is written.

        `follow` decides, without waiting for anything, what else the same commit adds once these events are folded,
        and `begin` in the same way which intent comes after that; when one fails, the commit is made without it.

        Raises what `commit` raises; ControlMoved only when control is asked for, or for what `begin` decided.
        """
        further = [each for each in (follow, begin) if each is not None]
        async with self._lock:
            while events := decide(self.folded):
                try:
                    await self._write(events, also, further)
                except StaleHead:  # what a former owner of this process had under way came in: it is folded now
                    log.info("run.head_moved", run_id=self.head.run_id, seq=self.state.seq)
                    continue
                return True
            return False

    async def require_control(self) -> None:
        """Makes sure that no command was given which is not applied yet.

        Raises:
            ControlMoved: there is one.
        """
        head = await self.journal.head(self.head.run_id)
        if head.control_gen != self.control_gen:
            raise ControlMoved(self.head.run_id, self.control_gen, head.control_gen)

    def outcome(self, attempt: st.AttemptRecord) -> act.Outcome | None:
        """What came of an attempt, when it is still needed."""
        return self.outcomes.get(attempt.finished_seq)

    async def _write(self, events: Sequence[ev.EventBody], also: Also, further: Sequence[Decide] = ()) -> None:
        try:
            events, append = await self._appending(events, also, further)
            await self.journal.append(append)
        except SkyError:
            await self.load()
            raise
        self.durable_seq = self.state.seq
        self.measures.committed(self.folded, events)
        self._forget()
        await self._snapshot()

    async def _appending(
        self, events: Sequence[ev.EventBody], also: Also, further: Sequence[Decide]
    ) -> tuple[Sequence[ev.EventBody], Append]:
        """Folds the events first: what lists show is written in the same commit as they are."""
        now_ms, before = self.clock.now_ms(), self.state.seq
        self._time.not_before(now_ms)
        self._fold(events, now_ms)
        for decide in further:
            try:
                more = decide(self.folded)
                self._fold(more, now_ms)
            except Exception as error:  # noqa: BLE001 -- whatever it is, it must not keep the events out
                log.error("run.nothing_followed", run_id=self.head.run_id, error=error)  # noqa: TRY400 -- it adds the traceback
                await self.load()
                self._fold(events, now_ms)
                break
            events = (*events, *more)
        return events, self._append(events, also, now_ms, before)

    def _fold(self, events: Sequence[ev.EventBody], now_ms: int) -> None:
        for body in events:
            event = ev.RunEvent(run_id=self.head.run_id, seq=self.state.seq + 1, epoch=self.head.epoch, body=body)
            event.time.FromMilliseconds(now_ms)
            self.folded.apply(event)
            self._keep_outcome(event)

    def _append(self, events: Sequence[ev.EventBody], also: Also, now_ms: int, before: int) -> Append:
        return Append(
            run_id=self.head.run_id,
            epoch=self.head.epoch,
            expect_seq=before,
            events=tuple(EventDraft.of(body) for body in events),
            append_id=self.ids.ulid(),
            control_gen=self.control_gen if also.under_control or _intends(events) else None,
            consume=also.consume,
            applied_commands=also.applied,
            new_approvals=also.questions,
            claims=claims_of(self.folded, events),
            releases=releases_of(self.folded, events),
            projection=projection(self.folded),
            time_ms=now_ms,
        )

    def _keep_outcome(self, event: ev.RunEvent) -> None:
        outcome = outcome_in(event.body)
        if outcome is not None:
            self.outcomes[event.seq] = outcome

    async def _outcomes_of(self, folded: RunFold) -> dict[int, act.Outcome]:
        found: dict[int, act.Outcome] = {}
        for seq in sorted(_needed(folded)):
            for stored in await self.journal.read(self.head.run_id, after_seq=seq - 1, limit=1):
                found[seq] = outcome_in(event_of(stored).body) or act.Outcome()
        return found

    def _forget(self) -> None:
        """Drops outcomes that nobody needs, once they have become many."""
        if len(self.outcomes) > _OUTCOMES_KEPT:
            needed = _needed(self.folded)
            self.outcomes = {seq: outcome for seq, outcome in self.outcomes.items() if seq in needed}

    async def _snapshot(self) -> None:
        if not due(self.state.seq, self._snapshot_seq, ended=terminal(self.state.phase)):
            return
        self._snapshot_seq = self.state.seq
        kept = self.state.SerializeToString(deterministic=True)
        try:
            await self.journal.save_snapshot(Snapshot(self.head.run_id, self.state.seq, self.head.fold_version, kept))
        except SkyError as error:  # the events are durable: without it the next owner only folds longer
            log.warning("snapshot.not_saved", run_id=self.head.run_id, error=error)


def _intends(events: Sequence[ev.EventBody]) -> bool:
    """Whether an attempt begins with these events: a command that is not applied yet forbids it."""
    return any(event.HasField("step_intended") for event in events)


def _needed(folded: RunFold) -> set[int]:
    """Outcomes that decisions may still need: of what is being checked, of its probes, and of the first step of each
    phase, on which the planner builds.
    """
    first = [folded.children(phase.node.node_id)[:1] for phase in folded.children("")]
    checking = folded.checking()
    probes = [folded.probes(record.node.node_id) for record in checking]
    records = chain(checking, *probes, *first)
    return {attempt.finished_seq for record in records for attempt in record.attempts[-1:] if attempt.finished_seq}
