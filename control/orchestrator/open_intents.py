"""Intents whose outcome has not come: still running, never begun, or lost with the worker that began them."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.core.finish import ending
from control.core.run import LOG_BEHIND, WORKER_AWAY, RunFold
from control.orchestrator.attempts import Attempts, NoWorker
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import Key, Standing, Wanted, WorkerLink, WorkerLinks
from control.orchestrator.results import Results, lost, still_open
from control.orchestrator.set_back import done_unknown
from infra.clock import Clock
from infra.settings import LeaseSettings
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

_MAY_RUN_AGAIN = (eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT)


@dataclass(slots=True)
class OpenIntents:
    """Settles what can be settled without the worker's result.

    Only the journal that an intent names can say "never begun". Any other answer, or none for as long as a lease and
    its grace, counts as begun and lost; and what may not run twice then waits for its worker or for a person.
    """

    ledger: Ledger
    links: WorkerLinks
    attempts: Attempts
    results: Results
    clock: Clock
    lease: LeaseSettings
    since: float
    """When the run came to this owner, on the monotonic clock: what was said before was said to another."""
    cancel_by_ms: int = 0
    """Until when cancelled steps may end by themselves."""
    _cancelled: set[tuple[str, Key]] = field(default_factory=set["tuple[str, Key]"])
    _missing_since: dict[Key, float] = field(default_factory=dict[Key, float])
    _compared: set[str] = field(default_factory=set[str])
    """Streams whose Hello was held against this log."""

    async def settle(self) -> None:
        """Looks at every open intent once, and at what workers say they have done.

        Raises:
            ControlMoved: a command came in before something could be sent again.
            NoWorker: the worker that something must be sent to again has no room, or has lent none to this node.
        """
        await self._compare()
        state = self.ledger.state
        if state.blocked_reason == LOG_BEHIND and not ending(state, self.clock.now_ms()):
            return
        away = False
        for record, attempt in self.ledger.folded.open_attempts():
            if attempt.intended_seq > self.ledger.durable_seq:
                continue  # it is in a commit that is under way and may come to nothing: nobody may hear of it yet
            key = Key(self.ledger.head.run_id, record.node.node_id, attempt.attempt)
            link = self.links.by_id.get(attempt.worker_id)
            if link is None or link.journal_id != attempt.journal_id:
                away = True
                await self._away(record, attempt, key, replaced=link is not None)
            else:
                self._missing_since.pop(key, None)
                await self._there(record, attempt, key, link)
        if not away and self.ledger.state.blocked_reason == WORKER_AWAY:
            await self.ledger.commit_now(_back)

    async def _compare(self) -> None:
        """Parks the run when a worker that has come since knows more than this log."""
        for link in [link for link in self.links.by_id.values() if link.session_id not in self._compared]:
            self._compared.add(link.session_id)
            if what := await done_unknown(self.ledger, link):
                await self.results.log_is_behind(link, what, again=True)

    async def _there(self, record: st.NodeRecord, attempt: st.AttemptRecord, key: Key, link: WorkerLink) -> None:
        """The very journal that the intent names can be asked."""
        state, standing = self.ledger.state, link.standing.get(key)
        if standing is Standing.RELEASED:
            await self.results.lose_behind(link, key, "has let go of its outcome")
        elif standing is Standing.OVERTAKEN:
            await self.results.log_is_behind(link, "obeys a later owner of this run")
        elif ending(state, self.clock.now_ms()):
            self._cancel(link, key)
        elif standing is Standing.HELD or (standing is None and (state.pause_wanted or not link.told(self.since))):
            link.inspect(key, self.ledger.fence)
        elif standing is Standing.ABSENT and state.pause_wanted:
            await self.ledger.commit_now(lambda folded: _withdrawn(folded, key))
        elif standing in (None, Standing.ABSENT):
            await self._assign_again(record, key, link)

    def _cancel(self, link: WorkerLink, key: Key) -> None:
        """An attempt that the worker does not know is cancelled too: then an overtaken Assign cannot begin it."""
        if (link.session_id, key) in self._cancelled:
            return
        self._cancelled.add((link.session_id, key))
        cancel = wire.Cancel(key=key.on_wire(self.ledger.fence), reason=self._why()[:1024])
        cancel.grace.FromMilliseconds(max(0, self.cancel_by_ms - self.clock.now_ms()))
        link.send(wire.ControlResponse(cancel=cancel))

    def _why(self) -> str:
        state = self.ledger.state
        return state.cancel_reason if state.cancel_wanted else "the deadline of its run has passed"

    async def _assign_again(self, record: st.NodeRecord, key: Key, link: WorkerLink) -> None:
        """It never began: it is sent again, unless a command came in."""
        await self.ledger.require_control()
        attempt = self.ledger.folded.attempt(key.step_id, key.attempt)
        if attempt is None or not attempt.open or link.leaving:
            return
        if link.credits <= 0:
            state = self.ledger.state
            raise NoWorker(Wanted(link.kind, link.worker_id, state.priority, tenant=state.tenant))
        with link.one_credit():
            self.attempts.assign(link, record, attempt)

    async def _away(self, record: st.NodeRecord, attempt: st.AttemptRecord, key: Key, *, replaced: bool) -> None:
        now = self.clock.monotonic()
        last_seen = max(self.since, self.links.last_seen.get(attempt.worker_id, now))
        since = self._missing_since.setdefault(key, last_seen)
        if now - since < self.lease.ttl + self.lease.grace:
            return
        if attempt.effect_class in _MAY_RUN_AGAIN or replaced:
            how = "came back with another journal" if replaced else "did not come back within its lease"
            why = f"worker {attempt.worker_id} {how}; whether it had begun is not known"
            await self._lose(key, why, WORKER_AWAY)
        else:
            await self._blocked(record, attempt)

    async def _lose(self, key: Key, why: str, reason: str) -> None:
        event = lost(key, why, reason)
        await self.ledger.commit_now(lambda folded: (event,) if still_open(folded, key) else ())

    async def _blocked(self, record: st.NodeRecord, attempt: st.AttemptRecord) -> None:
        detail = (
            f"worker {attempt.worker_id} may have begun {record.node.title!r} and is away; start it again,"
            " or say with `skyagent runs resolve` whether it happened"
        )
        event = ev.EventBody(run_blocked=ev.RunBlocked(reason=WORKER_AWAY, detail=detail))
        await self.ledger.commit_now(lambda folded: (event,) if folded.state.blocked_reason != WORKER_AWAY else ())


def _withdrawn(folded: RunFold, key: Key) -> list[ev.EventBody]:
    if not still_open(folded, key):
        return []
    withdrawn = ev.StepWithdrawn(step_id=key.step_id, attempt=key.attempt)
    withdrawn.reason = "it had not begun when the run was paused"
    return [ev.EventBody(step_withdrawn=withdrawn)]


def _back(folded: RunFold) -> list[ev.EventBody]:
    """Nobody is waited for any more."""
    if folded.state.blocked_reason != WORKER_AWAY:
        return []
    return [ev.EventBody(run_unblocked=ev.RunUnblocked(reason=WORKER_AWAY))]
