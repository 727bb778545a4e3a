"""From a step that may be tried to an attempt that a worker has been told: judged, asked, intended, assigned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from control.core import verdicts
from control.core.moves import Attempt
from control.journal import ApprovalNotUsable, ApprovalUse, NewApproval
from control.orchestrator import relatives
from control.orchestrator.judging import Judge
from control.orchestrator.ledger import Also, Ledger
from control.orchestrator.links import Key, Wanted, WorkerLink, WorkerLinks
from infra.clock import Clock
from infra.digest import digest_message
from infra.ids import Ids
from infra.log import event_logger
from infra.telemetry import Telemetry
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

STEP_DEADLINE_MS = 120_000

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class NoWorker(Exception):
    """No worker of this kind has room."""

    wanted: Wanted


class RunMoved(Exception):
    """The run has other events than the attempt was decided on: decide again."""


@dataclass(frozen=True, slots=True)
class Ready:
    """An attempt that policy allows, and the worker that has room for it."""

    link: WorkerLink
    record: st.NodeRecord
    number: int
    events: tuple[ev.EventBody, ...]


@dataclass(frozen=True, slots=True)
class Attempts:
    """Carries out attempts of one run."""

    ledger: Ledger
    links: WorkerLinks
    judge: Judge
    clock: Clock
    ids: Ids
    telemetry: Telemetry

    async def start(self, move: Attempt, basis: int) -> None:
        """Takes an attempt as far as it may go now: to its Assign, to a question, or to a refusal.

        Raises:
            NoWorker: nobody can do it now.
            PolicyUnavailable: nobody can say whether it may be done.
            ControlMoved: a command came in between.
            RunMoved: an event came in between.
        """
        try:
            await self._judged(move, basis)
        except ApprovalNotUsable as error:  # it was for something else, or is used up: the person is asked anew
            log.warning("approval.not_usable", run_id=self.ledger.head.run_id, error=error)
            await self._judged(replace(move, approval=None), basis)

    async def _judged(self, move: Attempt, basis: int) -> None:
        """Does what policy says."""
        digest = digest_message(move.record.node.step.action)
        approval = move.approval if move.approval and move.approval.action_digest == digest else None
        decision = await self.judge.decide(
            self.ledger, move.record, approved=approval is not None, now_ms=self.clock.now_ms()
        )
        decided = verdicts.decided(move, decision)
        if self.ledger.state.spec.dry_run:
            await self.ledger.commit((decided, verdicts.judged_only(move.record, decision)), basis=basis)
        elif decision.verdict == pol.VERDICT_ALLOW:
            await self._intend(replace(move, approval=approval), digest, decided, basis)
        elif decision.verdict == pol.VERDICT_ASK:
            await self._ask(move, digest, decision, basis)
        else:
            await self.ledger.commit(verdicts.denied(self.ledger.state, move, decision), basis=basis)

    def assign(self, link: WorkerLink, record: st.NodeRecord, attempt: st.AttemptRecord) -> None:
        """Sends an attempt whose intent is durable. The same key may be sent again: only a new one executes."""
        state, action = self.ledger.state, record.node.step.action
        key = Key(state.run_id, record.node.node_id, attempt.attempt)
        with self.telemetry.step_span(state.run_id, f"assign {record.node.title}", step_id=key.step_id) as span:
            assign = wire.Assign(
                key=key.on_wire(self.ledger.fence),
                action=action,
                action_digest=attempt.action_digest,
                decision_id=attempt.decision.decision_id,
                traceparent=span.traceparent,
                tenant=state.tenant,
                allowed_hosts=state.spec.allowed_hosts,
                sessions=state.sessions,
            )
        assign.deadline.FromMilliseconds(self.clock.now_ms() + STEP_DEADLINE_MS)
        assign.time_left.FromMilliseconds(STEP_DEADLINE_MS)
        link.assign(key, assign)
        self.links.turns.served(state.tenant)

    def _worker(self, record: st.NodeRecord) -> WorkerLink:
        kind = record.node.step.action.WhichOneof("kind") or ""
        if kind == "batch":
            kind = record.node.step.action.batch.actions[0].WhichOneof("kind") or ""
        before = self.ledger.folded.last_intended
        preferred = next((a.worker_id for a in reversed(before.attempts) if a.intended_seq), "") if before else ""
        wanted = Wanted(kind, preferred, self.ledger.state.priority, tenant=self.ledger.state.tenant)
        link = self.links.pick(wanted)
        if link is None:
            raise NoWorker(wanted)
        return link

    def at_once(self, move: Attempt) -> Ready | None:
        """An attempt that may begin without waiting for a worker, policy or a person; nothing when it may not."""
        state = self.ledger.state
        if move.approval is not None or state.blocked_reason or state.spec.dry_run:
            return None
        if relatives.shared(self.ledger.folded, move.record):
            return None  # it may be refused, and a result must never be
        try:
            link = self._worker(move.record)
        except NoWorker:
            return None
        decision = self.judge.at_once(self.ledger, move.record, now_ms=self.clock.now_ms())
        if decision is None or decision.verdict != pol.VERDICT_ALLOW:
            return None
        return self._ready(link, move, digest_message(move.record.node.step.action), verdicts.decided(move, decision))

    def assign_intended(self, ready: Ready) -> bool:
        """Sends an attempt, if its intent is in the journal and still open."""
        attempt = self.ledger.folded.attempt(ready.record.node.node_id, ready.number)
        if attempt is None or not attempt.open:
            return False
        self.assign(ready.link, ready.record, attempt)
        return True

    async def _intend(self, move: Attempt, digest: str, decided: ev.EventBody, basis: int) -> None:
        ready = self._ready(self._worker(move.record), move, digest, decided)
        consume = ApprovalUse(move.approval.approval_id, digest) if move.approval else None
        with ready.link.one_credit():
            also = Also(under_control=True, consume=consume)
            if not await self.ledger.commit(ready.events, also, basis=basis):
                raise RunMoved
            self.assign_intended(ready)

    def _ready(self, link: WorkerLink, move: Attempt, digest: str, decided: ev.EventBody) -> Ready:
        intended = verdicts.intended(move, digest, decided, link.worker_id, link.journal_id)
        events = (*verdicts.unblocked(self.ledger.state), decided, intended)
        return Ready(link, move.record, move.number, events)

    async def _ask(self, move: Attempt, digest: str, decision: pol.Decision, basis: int) -> None:
        approval_id = self.ids.ulid()
        expires_ms = self.clock.now_ms() + verdicts.ttl_ms(self.ledger.state, decision)
        asked = verdicts.question(self.ledger.folded, move.record, decision, approval_id, expires_ms)
        body = asked.SerializeToString(deterministic=True)
        question = NewApproval(approval_id, move.record.node.node_id, digest, expires_ms, body)
        events = (
            *verdicts.unblocked(self.ledger.state),
            verdicts.decided(move, decision),
            ev.EventBody(approval_requested=asked),
        )
        await self.ledger.commit(events, Also(under_control=True, questions=(question,)), basis=basis)
