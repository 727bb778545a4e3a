"""What workers report: recorded on arrival, whatever is thought about it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from control.agentfs import AgentFs
from control.core.check import Checks
from control.core.dispatch import next_move
from control.core.moves import Record
from control.core.run import LOG_BEHIND, WORKER_AWAY, RunFold, terminal
from control.core.validate import judge
from control.journal import ControlMoved
from control.journal.folding import event_of
from control.orchestrator.evidence import MOST_REFUSALS, not_stored, without
from control.orchestrator.joining import Joining
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import Key, WorkerLink
from control.orchestrator.set_back import told
from infra.blobs import BlobStore
from infra.log import event_logger
from infra.refs import blob_refs
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

RUN_ENDED = "RUN_ENDED"
"""The reason of a worker that refuses because it was told that the run is over."""
_PAGE = 1000

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Report:
    """A result, and the stream that it came by."""

    link: WorkerLink
    result: wire.StepResult


@dataclass(slots=True)
class Results:
    """The results of one run's attempts, one after another, beside whatever its driver is doing.

    A report leaves `reports` when it is recorded, so that none is lost with a driver that breaks.
    """

    ledger: Ledger
    agentfs: AgentFs
    blobs: BlobStore
    woken: asyncio.Event
    joining: Callable[[], Joining]
    """Makes what lets the next attempt begin by the commit of a result."""
    reports: deque[Report] = field(default_factory=deque[Report])
    _closed: bool = False
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, report: Report) -> None:
        """Takes a result; it is recorded as soon as the journal has room."""
        self.reports.append(report)
        self._arrived.set()

    async def record_all(self) -> None:
        """Records what comes, until `close`."""
        while not self._closed:
            await self._arrived.wait()
            self._arrived.clear()
            await self.record_rest()

    def close(self) -> None:
        """Lets `record_all` return once it has recorded what has come."""
        self._closed = True
        self._arrived.set()

    async def record_rest(self) -> None:
        """Records what has come so far."""
        while self.reports:
            await self.record(self.reports[0])
            self.reports.popleft()

    async def record(self, report: Report) -> None:
        """Makes a result durable, then lets the worker let go of it."""
        key = Key.of(report.result.key)
        attempt = self.ledger.folded.attempt(key.step_id, key.attempt)
        if attempt is None or not attempt.intended_seq:
            if not await told(self.ledger, (key,)):  # it is reported on every stream
                await self.log_is_behind(report.link, f"did attempt {key.attempt} of step {key.step_id}")
            return
        if attempt.open and report.result.outcome.reason == RUN_ENDED:
            # It has forgotten what it did: that it refuses now does not prove that nothing happened.
            await self.lose_behind(report.link, key, "was told that the run is over")
            report.link.recorded(report.result.key)
            return
        # What a former process of the worker declined when it was drained is reported by its successor, too.
        now = key not in {Key.of(held.key) for held in report.link.hello.held}
        report.link.leaving |= now and report.result.outcome.reason == "DRAINING"
        readable = await self._readable(report)
        if readable is not None:
            await self._take(readable, key, attempt)

    async def _readable(self, report: Report) -> Report | None:
        """A result all of whose bytes are stored. Nothing when its worker was asked to store them and report again."""
        result, link = report.result, report.link
        missing = await not_stored(self.blobs, result.outcome)
        if not missing:
            return report
        log.warning("result.bytes_missing", run_id=result.key.run_id, worker_id=link.worker_id, missing=missing)
        if link.refusals[Key.of(result.key)] < MOST_REFUSALS:
            link.refused(result.key, missing)
            return None
        rest = without(result.outcome, missing)
        return Report(link, wire.StepResult(key=result.key, outcome=rest, action_digest=result.action_digest))

    async def _take(self, report: Report, key: Key, attempt: st.AttemptRecord) -> None:
        await self.agentfs.grant(self.ledger.state.tenant, blob_refs(report.result.outcome))
        went_on = False
        if attempt.open or not await self._recorded_late(key, attempt):
            went_on = await self._commit(report)
        else:
            report.link.recorded(report.result.key)
        if not went_on:
            self.woken.set()
        prefix = f"{self.ledger.state.seq:05d}"
        await self.agentfs.show_evidence(key.run_id, prefix, report.result.outcome.blobs)

    async def _commit(self, report: Report) -> bool:
        """Records a result with what can be said and begun at once; whether the next attempt began.

        A command forbids the attempt, never the result, which is then recorded without it.
        """
        decide = partial(events_of, report=report)
        # Files are listed, too: the driver's business.
        follow = None if report.result.outcome.browser.files else self._judged
        try:
            with self.joining() as joining:
                await self.ledger.commit_now(decide, follow=follow, begin=joining.events)
                report.link.recorded(report.result.key)
                return joining.send()
        except ControlMoved:
            await self.ledger.commit_now(decide, follow=follow)
            report.link.recorded(report.result.key)
            return False

    def _judged(self, folded: RunFold) -> Sequence[ev.EventBody]:
        """What the core says of a result at once, so that both take one commit; what it has to ask for comes later."""
        checks = Checks(self.ledger.outcomes, self.ledger.ids.ulid)
        move = next_move(folded, checks, self.ledger.clock.now_ms())
        return move.events if isinstance(move, Record) else ()

    async def log_is_behind(self, link: WorkerLink, what: str, *, again: bool = False) -> None:
        """A worker knows what the log does not: the log was set back, and a person must look at the run.

        Once it is parked, only what is said `again` is added for that person.
        """
        log.error("run.log_behind", run_id=self.ledger.head.run_id, worker_id=link.worker_id, what=what)
        known = _ended if again else _parked
        await self.ledger.commit_now(lambda folded: () if known(folded) else (log_behind(link, what),))
        self.woken.set()

    async def lose_behind(self, link: WorkerLink, key: Key, what: str) -> None:
        """The same, of an open attempt whose worker can say nothing more: it counts as begun and lost."""
        why = f"worker {link.worker_id} {what}, which this log does not know"
        log.error("run.log_behind", run_id=key.run_id, worker_id=link.worker_id, what=what)
        events = (lost(key, why, LOG_BEHIND), log_behind(link, what))
        await self.ledger.commit_now(lambda folded: events if still_open(folded, key) else ())
        self.woken.set()

    async def _recorded_late(self, key: Key, attempt: st.AttemptRecord) -> bool:
        """Whether the journal holds a late result of an attempt already, which the fold does not tell."""
        seq = attempt.intended_seq
        while page := await self.ledger.journal.read(key.run_id, after_seq=seq, limit=_PAGE):
            for stored in page:
                seq = stored.seq
                if stored.kind == ev.EventBody.LATE_RESULT_FIELD_NUMBER:
                    late = event_of(stored).body.late_result
                    if (late.step_id, late.attempt) == (key.step_id, key.attempt):
                        return True
        return False


def events_of(folded: RunFold, report: Report) -> Sequence[ev.EventBody]:
    """What a result adds to the journal: once for each attempt, and a late one changes no verdict."""
    key, outcome = report.result.key, report.result.outcome
    record = folded.node(key.step_id)
    attempt = record.attempts[key.attempt - 1]
    if attempt.open:
        finished = ev.StepFinished(step_id=key.step_id, attempt=key.attempt, outcome=outcome)
        finished.worker_id = report.link.worker_id
        return (ev.EventBody(step_finished=finished),)
    if attempt.finished_seq and attempt.outcome_reason != WORKER_AWAY:
        return ()
    return _late(folded, record, attempt, outcome)


def _late(
    folded: RunFold, record: st.NodeRecord, attempt: st.AttemptRecord, outcome: act.Outcome
) -> Sequence[ev.EventBody]:
    late = ev.LateResult(step_id=record.node.node_id, attempt=attempt.attempt, outcome=outcome)
    late.contradicts = _contradicts(attempt, outcome)
    events = [ev.EventBody(late_result=late)]
    effect = _proven(record, outcome)
    last = attempt.attempt == len(record.attempts)
    if record.state == ev.NODE_STATE_UNCERTAIN and last and effect and not terminal(folded.state.phase):
        resolved = ev.UncertaintyResolved(step_id=record.node.node_id, attempt=attempt.attempt, effect=effect)
        resolved.source, resolved.note = "late result", outcome.message or "the worker reported after all"
        events.append(ev.EventBody(uncertainty_resolved=resolved))
    return events


def _contradicts(attempt: st.AttemptRecord, outcome: act.Outcome) -> bool:
    """Whether a late result says otherwise than the person or the probe did."""
    probed = {plan.HOLDS_YES: eff.EFFECT_DONE, plan.HOLDS_NO: eff.EFFECT_NONE}.get(attempt.holds, attempt.effect)
    said = attempt.effect if attempt.effect in (eff.EFFECT_DONE, eff.EFFECT_NONE) else probed
    return {said, outcome.effect} == {eff.EFFECT_DONE, eff.EFFECT_NONE}


def _proven(record: st.NodeRecord, outcome: act.Outcome) -> eff.Effect.ValueType | None:
    """What a late result settles: that nothing happened, or that it happened and all that was claimed of it holds."""
    if outcome.effect == eff.EFFECT_NONE:
        return eff.EFFECT_NONE
    holds = judge(record.node.step.postconditions, outcome, {}).holds == plan.HOLDS_YES
    return eff.EFFECT_DONE if outcome.effect == eff.EFFECT_DONE and holds else None


def lost(key: Key, why: str, reason: str) -> ev.EventBody:
    """An attempt of which its worker can say nothing more."""
    outcome = act.Outcome(status=act.OUTCOME_STATUS_LOST, effect=eff.EFFECT_UNKNOWN, reason=reason, message=why)
    return ev.EventBody(step_finished=ev.StepFinished(step_id=key.step_id, attempt=key.attempt, outcome=outcome))


def still_open(folded: RunFold, key: Key) -> bool:
    """Whether the intent of an attempt is open."""
    attempt = folded.attempt(key.step_id, key.attempt)
    return attempt is not None and attempt.open


def log_behind(link: WorkerLink, what: str) -> ev.EventBody:
    """The run is parked for a person, because a worker knows what its log does not."""
    detail = (
        f"worker {link.worker_id} {what}, which this log does not know: it was restored from before; look at what"
        " happened, then resume or cancel the run"
    )
    return ev.EventBody(run_blocked=ev.RunBlocked(reason=LOG_BEHIND, detail=detail))


def _ended(folded: RunFold) -> bool:
    return terminal(folded.state.phase)


def _parked(folded: RunFold) -> bool:
    return folded.state.blocked_reason == LOG_BEHIND or terminal(folded.state.phase)
