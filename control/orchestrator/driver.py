"""Drives one run: applies commands, lets the core choose the next move, carries it out, and waits for what it needs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from control.core.check import Checks
from control.core.dispatch import next_move
from control.core.finish import finished, overdue, unplannable
from control.core.moments import ms_of
from control.core.moves import Attempt, Draw, Finish, Move, OwnStep, Plan, Record, Wait
from control.core.run import INTERNAL_ERROR, terminal
from control.journal import (
    ApprovalDecision,
    ApprovalNotPending,
    ApprovalStatus,
    BegunElsewhere,
    Command,
    CommandNotPending,
    ControlMoved,
    RunEnded,
    StaleHead,
)
from control.journal.folding import event_of
from control.orchestrator import relatives
from control.orchestrator.attempts import Attempts, NoWorker, RunMoved
from control.orchestrator.commands import cancel_by_ms, command_of, events_of
from control.orchestrator.drawing import Drawing
from control.orchestrator.judging import PolicyUnavailable
from control.orchestrator.ledger import Also, Ledger
from control.orchestrator.links import Key, WorkerLink, WorkerLinks
from control.orchestrator.open_intents import OpenIntents
from control.orchestrator.own_steps import OwnSteps
from control.orchestrator.queueing import unblocked
from control.orchestrator.results import Results
from infra.clock import Clock, wait_for
from infra.errors import SkyError
from infra.ids import Ids
from infra.log import event_logger
from skyagent.run.v1 import event_pb2 as ev

LONGEST_WAIT_MS = 1_000
"""A lost wake costs at most this."""
NO_WORKER_GRACE_MS = 2_000
_RETRY_POLICY_MS = 500
_RETRY_RELATIVE_MS = 500
_LOOK_ROUND_MS = 10_000
"""Who waits for a worker looks at everything else again after so long."""

log = event_logger(__name__)


@dataclass(slots=True)
class Driver:
    """A run under this node. `results` may be told at any time; everything else happens in `drive`."""

    ledger: Ledger
    attempts: Attempts
    own_steps: OwnSteps
    results: Results
    intents: OpenIntents
    drawing: Drawing
    links: WorkerLinks
    clock: Clock
    ids: Ids
    node_id: str
    incarnation: str
    woken: asyncio.Event
    """Set when something may have changed."""
    commanded: bool = True
    """Whether there may be commands that are not applied yet."""
    _commands_read_ms: int = 0

    @property
    def run_id(self) -> str:
        return self.ledger.head.run_id

    async def drive(self) -> None:
        """Drives the run to its end, or until another node owns it.

        Raises:
            StaleOwner: another node owns the run now.
        """
        await self.ledger.load()
        await self._take_over()
        if self.ledger.state.cancel_wanted:
            self.intents.cancel_by_ms = await self._cancel_by_ms()
        await self.own_steps.index(self.ledger.state.artifacts)
        async with asyncio.TaskGroup() as group:
            group.create_task(self.results.record_all())
            while not terminal(self.ledger.state.phase):
                self.woken.clear()
                await self._advance()
                await self._recovered()
            self.results.close()
        await self.results.record_rest()
        await self.drawing.give_back()
        self._let_go()

    async def _take_over(self) -> None:
        state = self.ledger.state
        if (state.epoch, state.node_id) == (self.ledger.head.epoch, self.node_id):
            return  # it broke here and is tried again
        self.links.forget(self.run_id, self.intents.since)
        cause = "restarted" if state.node_id else "created"
        owner = ev.OwnerChanged(node_id=self.node_id, incarnation_id=self.incarnation, cause=cause)
        owner.fold_version = self.ledger.head.fold_version
        await self.ledger.commit_now(lambda folded: (ev.EventBody(owner_changed=owner), *unblocked(folded)))

    async def _cancel_by_ms(self) -> int:
        """What an earlier owner promised to those whom it cancelled."""
        by_ms, seen = 0, 0
        while page := await self.ledger.journal.read(self.run_id, after_seq=seen):
            seen = page[-1].seq
            for stored in page:
                if stored.kind == ev.EventBody.COMMAND_APPLIED_FIELD_NUMBER:
                    command = event_of(stored).body.command_applied.command
                    by_ms = cancel_by_ms(command, stored.time_ms) or by_ms
        return by_ms

    async def _recovered(self) -> None:
        if self.ledger.state.blocked_reason == INTERNAL_ERROR:
            unblocked = ev.EventBody(run_unblocked=ev.RunUnblocked(reason=INTERNAL_ERROR))
            await self.ledger.commit_now(
                lambda folded: (unblocked,) if folded.state.blocked_reason == INTERNAL_ERROR else ()
            )

    async def _advance(self) -> None:
        try:
            await self._apply_commands()
            await self._expire_approvals()
            await self.intents.settle()
            basis = self.ledger.state.seq
            checks = Checks(self.ledger.outcomes, self.ids.ulid)
            await self._carry_out(next_move(self.ledger.folded, checks, self.clock.now_ms()), basis)
        except (ControlMoved, CommandNotPending, StaleHead) as moved:
            self.commanded = True
            log.debug("run.moved", run_id=self.run_id, reason=moved.reason)
        except RunMoved:
            log.debug("run.moved", run_id=self.run_id, reason="EVENT_CAME")
        except NoWorker as missing:
            await self._wait_for_worker(missing)
        except PolicyUnavailable as error:
            await self._block(error.reason, error.message)
            await self._sleep(self.clock.now_ms() + _RETRY_POLICY_MS)
        except BegunElsewhere as taken:
            await self._begun_elsewhere(taken)

    async def _begun_elsewhere(self, taken: BegunElsewhere) -> None:
        """A relative has begun the next step: once it is done with it, this run finds out what came of that."""
        if taken.begun.open:
            blocked = relatives.busy(self.ledger.folded, taken).run_blocked
            await self._block(blocked.reason, blocked.detail)
            await self._sleep(self.clock.now_ms() + _RETRY_RELATIVE_MS)
        else:
            await self.ledger.commit_now(partial(relatives.found, error=taken))

    async def _carry_out(self, move: Move, basis: int) -> None:
        match move:
            case Attempt():
                await self.attempts.start(move, basis)
            case Record(events):
                files = self.own_steps.files_of(events)
                if await self.ledger.commit((*events, *files), basis=basis):
                    await self.own_steps.index(file.artifact_recorded for file in files)
            case Draw():
                if not await self.drawing.draw(move):
                    await self._sleep(0)
            case OwnStep(record):
                await self.own_steps.do(record, basis)
            case Plan():
                await self._plan(basis)
            case Finish():
                await self._finish(move, basis)
            case Wait(until_ms):
                await self._sleep(until_ms)

    async def _apply_commands(self) -> None:
        """Applies what people said. Without a wake it looks once in a while only: an intent that does not know a
        command is refused by the journal itself.
        """
        now_ms = self.clock.now_ms()
        if not self.commanded and now_ms - self._commands_read_ms < LONGEST_WAIT_MS:
            return
        told, self.commanded, self._commands_read_ms = self.commanded, False, now_ms
        head = await self.ledger.journal.head(self.run_id)
        if not told and self.ledger.control_gen == head.control_gen:
            return  # every command raises it
        self.ledger.control_gen = head.control_gen
        for command in await self.ledger.journal.pending_commands(self.run_id):
            by_ms = cancel_by_ms(command_of(command), command.created_ms)
            self.intents.cancel_by_ms = by_ms or self.intents.cancel_by_ms
            await self.ledger.commit_now(partial(events_of, command), Also(applied=(command.cmd_id,)))

    async def _expire_approvals(self) -> None:
        now_ms = self.ledger.wall.now_ms()  # the database decides whether it is so
        for approval in list(self.ledger.folded.last_questions()):
            if approval.state != ev.APPROVAL_STATE_PENDING or ms_of(approval.expire_time) > now_ms:
                continue
            decision = ApprovalDecision(approval.approval_id, ApprovalStatus.EXPIRED)
            expire = Command(self.ids.uuid(), self.run_id, self.ledger.state.tenant, "EXPIRE", "", decision=decision)
            try:
                await self.ledger.journal.command(expire)
            except (ApprovalNotPending, RunEnded):
                log.debug("approval.not_expired", approval_id=approval.approval_id)
            self.commanded = True
        if self.commanded:
            await self._apply_commands()

    async def _plan(self, basis: int) -> None:
        try:
            extended = await self.own_steps.plan()
        except SkyError as error:
            await self._finish(unplannable(error), basis)
            return
        await self.ledger.commit(extended, basis=basis)

    async def _finish(self, move: Finish, basis: int) -> None:
        events = finished(self.ledger.folded, move)
        also = Also(under_control=len(events) > 1)  # an answer that comes at this very moment is applied first
        if await self.ledger.commit(events, also, basis=basis):
            phase = ev.RunPhase.Name(move.phase)
            self._trace(phase)
            log.info("run.finished", run_id=self.run_id, phase=phase, summary=move.summary)

    def _trace(self, phase: str) -> None:
        """The run's own span, the parent of its steps' spans."""
        state = self.ledger.state
        begin_ms, end_ms = ms_of(state.create_time), ms_of(state.finish_time)
        spans = self.attempts.telemetry
        spans.run_span(self.run_id, f"run {state.spec.template}", begin_ms, end_ms, phase=phase)

    async def _wait_for_worker(self, missing: NoWorker) -> None:
        """Until one has room or a person says something: policy is not asked again and again meanwhile."""
        missing_since_ms, waited_ms = self.clock.now_ms(), 0
        kind = missing.wanted.kind
        with self.links.waiting_for_room(self.woken, missing.wanted):
            while not self.commanded and self.links.pick(missing.wanted) is None:
                if waited_ms >= _LOOK_ROUND_MS or overdue(self.ledger.state, self.clock.now_ms()):
                    break
                self.woken.clear()
                waited_ms = self.clock.now_ms() - missing_since_ms
                if waited_ms >= NO_WORKER_GRACE_MS and not self.links.connected(kind):
                    fix = f"start one with `skyagent worker {kind}`"
                    await self._block("NO_WORKER", f"no {kind} worker is connected; {fix}")
                await self._sleep(missing_since_ms + NO_WORKER_GRACE_MS if waited_ms < NO_WORKER_GRACE_MS else 0)

    async def _block(self, reason: str, detail: str) -> None:
        """Says once why nothing can be dispatched: the reason tells, the wording of an error may change each time."""
        event = ev.EventBody(run_blocked=ev.RunBlocked(reason=reason, detail=detail))
        await self.ledger.commit_now(lambda folded: (event,) if folded.state.blocked_reason != reason else ())

    async def _sleep(self, until_ms: int) -> None:
        """Waits for a wake, at most until a moment, and never long: a lost wake must not matter."""
        now_ms = self.clock.now_ms()
        longest = now_ms + LONGEST_WAIT_MS
        ms = max(0, min(until_ms or longest, longest) - now_ms)
        await wait_for(self.woken, self.clock, ms / 1000)

    def _let_go(self) -> None:
        workers = {attempt.worker_id for record in self.ledger.state.nodes for attempt in record.attempts}
        self.links.end_run(self.run_id, workers)

    def command(self) -> None:
        """A person said something."""
        self.commanded = True
        self.woken.set()

    def awaits(self, key: Key, link: WorkerLink) -> bool:
        """Whether the outcome of an open attempt may have been reported to a former owner, and only to that one."""
        reported = any(Key.of(report.result.key) == key for report in self.results.reports)
        return self.holds(key) and not reported and not link.told(self.intents.since)

    def holds(self, key: Key) -> bool:
        """Whether an attempt is open in this run."""
        attempt = self.ledger.folded.attempt(key.step_id, key.attempt)
        return attempt is not None and attempt.open
