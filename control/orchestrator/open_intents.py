"""Intents whose outcome has not come: still running, never begun, or lost with the worker that began them."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.orchestrator.attempts import Attempts
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import Key, WorkerLink, WorkerLinks
from infra.clock import Clock
from infra.settings import LeaseSettings
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

_MAY_RUN_AGAIN = (eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT)
_DEFAULT_GRACE_MS = 5_000


@dataclass(slots=True)
class OpenIntents:
    """Settles what can be settled without the worker's result.

    Only the journal that an intent names can say "never begun". Any other answer, or none for as long as a lease and
    its grace, counts as begun and lost; and what may not run twice then waits for its worker or for a person.
    """

    ledger: Ledger
    links: WorkerLinks
    attempts: Attempts
    clock: Clock
    lease: LeaseSettings
    _cancelled: set[tuple[str, Key]] = field(default_factory=set["tuple[str, Key]"])
    _missing_since: dict[Key, float] = field(default_factory=dict[Key, float])

    async def settle(self) -> None:
        """Looks at every open intent once."""
        for record, attempt in list(self.ledger.folded.open_attempts()):
            key = Key(self.ledger.head.run_id, record.node.node_id, attempt.attempt)
            link = self.links.by_id.get(attempt.worker_id)
            if link is None or link.journal_id != attempt.journal_id:
                await self._away(record, attempt, key, replaced=link is not None)
            elif key in link.known:
                self._missing_since.pop(key, None)
                self._cancel(link, key)
            else:
                await self._never_begun(record, attempt, link)

    def _cancel(self, link: WorkerLink, key: Key) -> None:
        if not self.ledger.state.cancel_wanted or (link.session_id, key) in self._cancelled:
            return
        self._cancelled.add((link.session_id, key))
        cancel = wire.Cancel(key=key.on_wire(self.ledger.fence), reason=self.ledger.state.cancel_reason)
        cancel.grace.FromMilliseconds(_DEFAULT_GRACE_MS)
        link.send(wire.ControlResponse(cancel=cancel))

    async def _never_begun(self, record: st.NodeRecord, attempt: st.AttemptRecord, link: WorkerLink) -> None:
        """The very journal does not know it: it is sent again, unless nothing may start now."""
        state = self.ledger.state
        if state.pause_wanted or state.cancel_wanted:
            withdrawn = ev.StepWithdrawn(step_id=record.node.node_id, attempt=attempt.attempt)
            withdrawn.reason = "it had not begun when the run was stopped"
            await self.ledger.commit((ev.EventBody(step_withdrawn=withdrawn),))
        elif link.credits > 0:
            self.attempts.assign(link, record, attempt)

    async def _away(self, record: st.NodeRecord, attempt: st.AttemptRecord, key: Key, *, replaced: bool) -> None:
        now = self.clock.monotonic()
        since = self._missing_since.setdefault(key, self.links.last_seen.get(attempt.worker_id, now))
        if now - since < self.lease.ttl + self.lease.grace:
            return
        if attempt.effect_class in _MAY_RUN_AGAIN or replaced:
            await self.ledger.commit((_lost(record, attempt, replaced=replaced),))
        else:
            await self._blocked(record, attempt)

    async def _blocked(self, record: st.NodeRecord, attempt: st.AttemptRecord) -> None:
        detail = (
            f"worker {attempt.worker_id} may have begun {record.node.title!r} and is away; start it again,"
            " or say with `skyagent runs resolve` whether it happened"
        )
        if self.ledger.state.blocked_detail != detail:
            blocked = ev.RunBlocked(reason="WORKER_AWAY", detail=detail)
            await self.ledger.commit((ev.EventBody(run_blocked=blocked),))


def _lost(record: st.NodeRecord, attempt: st.AttemptRecord, *, replaced: bool) -> ev.EventBody:
    why = "came back with another journal" if replaced else "did not come back within its lease"
    outcome = act.Outcome(
        status=act.OUTCOME_STATUS_LOST,
        effect=eff.EFFECT_UNKNOWN,
        reason="WORKER_AWAY",
        message=f"worker {attempt.worker_id} {why}; whether it had begun is not known",
    )
    finished = ev.StepFinished(step_id=record.node.node_id, attempt=attempt.attempt, outcome=outcome)
    return ev.EventBody(step_finished=finished)
