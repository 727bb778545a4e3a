"""What workers report: recorded on arrival, before anything is thought about it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from control.agentfs import AgentFs
from control.core.run import LOG_BEHIND
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import WorkerLink
from skyagent.common.v1 import blob_pb2
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st


@dataclass(slots=True)
class Results:
    """The results of one run's attempts, one after another, beside whatever its driver is doing."""

    ledger: Ledger
    agentfs: AgentFs
    woken: asyncio.Event
    _inbox: asyncio.Queue[tuple[WorkerLink, wire.StepResult]] = field(
        default_factory=asyncio.Queue["tuple[WorkerLink, wire.StepResult]"]
    )

    def put(self, link: WorkerLink, result: wire.StepResult) -> None:
        """Takes a result; it is recorded as soon as the journal has room."""
        self._inbox.put_nowait((link, result))

    async def record_all(self) -> None:
        """Records what comes, until cancelled."""
        while True:
            link, result = await self._inbox.get()
            await self.record(link, result)

    async def record(self, link: WorkerLink, result: wire.StepResult) -> None:
        """Makes a result durable, then lets the worker let go of it."""
        if self.ledger.folded.attempt(result.key.step_id, result.key.attempt) is None:
            await self._log_is_behind(link, result)
            return
        events = events_of(self.ledger, result, link.worker_id)
        if events:
            await self.agentfs.grant(self.ledger.state.tenant, all_blobs(result.outcome))
            await self.ledger.commit(events)
        link.recorded(result.key)
        self.woken.set()

    async def _log_is_behind(self, link: WorkerLink, result: wire.StepResult) -> None:
        """The worker did what the log does not know: the log was set back, and a person must look at the run."""
        detail = (
            f"worker {link.worker_id} did attempt {result.key.attempt} of step {result.key.step_id}, which this log"
            " does not know: it was restored from before; look at what happened, then resume or cancel the run"
        )
        if self.ledger.state.blocked_reason != LOG_BEHIND:
            blocked = ev.RunBlocked(reason=LOG_BEHIND, detail=detail)
            await self.ledger.commit((ev.EventBody(run_blocked=blocked),))


def all_blobs(outcome: act.Outcome) -> Sequence[blob_pb2.BlobRef]:
    """Evidence and files that an outcome names."""
    return [blob for blob in (*outcome.blobs, *outcome.browser.files) if blob.digest]


def events_of(ledger: Ledger, result: wire.StepResult, worker_id: str) -> Sequence[ev.EventBody]:
    """What a result adds to the journal: once for each attempt, and a late one changes no verdict."""
    key, outcome = result.key, result.outcome
    attempt = ledger.folded.node(key.step_id).attempts[key.attempt - 1]
    if attempt.open:
        finished = ev.StepFinished(step_id=key.step_id, attempt=key.attempt, outcome=outcome, worker_id=worker_id)
        return (ev.EventBody(step_finished=finished),)
    record = ledger.folded.node(key.step_id)
    if attempt.finished_seq and not _is_substitute(attempt, outcome):
        return ()
    return _late(record, attempt, outcome)


def _is_substitute(attempt: st.AttemptRecord, outcome: act.Outcome) -> bool:
    """Whether the recorded outcome was only this node's word for a worker that was away."""
    return attempt.outcome_reason == "WORKER_AWAY" and outcome.reason != "WORKER_AWAY"


def _late(record: st.NodeRecord, attempt: st.AttemptRecord, outcome: act.Outcome) -> Sequence[ev.EventBody]:
    settled = attempt.effect in (eff.EFFECT_DONE, eff.EFFECT_NONE)
    contradicts = settled and outcome.effect not in (attempt.effect, eff.EFFECT_UNKNOWN)
    late = ev.LateResult(step_id=record.node.node_id, attempt=attempt.attempt, outcome=outcome, contradicts=contradicts)
    events = [ev.EventBody(late_result=late)]
    known = outcome.effect in (eff.EFFECT_DONE, eff.EFFECT_NONE)
    if record.state == ev.NODE_STATE_UNCERTAIN and attempt.attempt == len(record.attempts) and known:
        resolved = ev.UncertaintyResolved(
            step_id=record.node.node_id, attempt=attempt.attempt, effect=outcome.effect, source="late result"
        )
        resolved.note = outcome.message or "the worker reported after all"
        events.append(ev.EventBody(uncertainty_resolved=resolved))
    return events
