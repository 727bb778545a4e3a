"""Runs that may not begin yet: their journals say why, though nobody owns them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from control.core.fairness import TENANT_LIMIT, Admission
from control.core.run import FOLD_VERSION, RunFold
from control.journal import Journal, RunHead
from control.orchestrator.ledger import Ledger
from infra.errors import Conflict, Exhausted, Unavailable
from infra.log import event_logger
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1.run_service_pb2 import RunSummary

AT_ONCE = 256

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Queueing:
    """Which runs may begin, and what is said to those that may not."""

    journal: Journal
    admission: Admission
    ledger_of: Callable[[RunHead], Ledger]

    async def say_why(self) -> None:
        """Writes once into each journal what its run waits for. Whoever claims it meanwhile has its way."""
        for listing in await self.journal.queued(limit=AT_ONCE):
            shown = listing.projection
            if listing.head.fold_version > FOLD_VERSION:
                continue  # a newer node says why
            if shown is not None and RunSummary.FromString(shown.body).blocked_reason == TENANT_LIMIT:
                continue
            try:
                ledger = self.ledger_of(listing.head)
                await ledger.load()
                await ledger.commit_now(self._blocked)
            except Conflict as moved:  # it was claimed
                log.debug("run.moved", run_id=listing.head.run_id, reason=moved.reason)
            except (Exhausted, Unavailable):
                raise
            except Exception as error:  # noqa: BLE001 -- one run that cannot be read must not end the others
                log.error("run.why_unsaid", run_id=listing.head.run_id, error=error)  # noqa: TRY400 -- it adds the traceback

    def _blocked(self, folded: RunFold) -> tuple[ev.EventBody, ...]:
        if folded.state.blocked_reason == TENANT_LIMIT or folded.state.phase != ev.RUN_PHASE_QUEUED:
            return ()
        most = self.admission.most
        detail = f"{most} runs of tenant {folded.state.tenant} may be under way at once: it begins when one has ended"
        return (ev.EventBody(run_blocked=ev.RunBlocked(reason=TENANT_LIMIT, detail=detail)),)


def unblocked(folded: RunFold) -> tuple[ev.EventBody, ...]:
    """What whoever begins the run writes."""
    if folded.state.blocked_reason != TENANT_LIMIT:
        return ()
    return (ev.EventBody(run_unblocked=ev.RunUnblocked(reason=TENANT_LIMIT)),)
