"""What is looked at of a journal: that it can be written, and what is open in it."""

from __future__ import annotations

from collections.abc import Sequence

from control.journal.journal import Journal
from infra.clock import Clock
from infra.health import Finding, State
from infra.metrics import Reading
from infra.metrics import catalogue as known


async def look_at_journal(journal: Journal) -> Finding:
    """Writes, durably, and says how long that took; what cannot be written raises what any write would."""
    await journal.probe()
    return Finding(State.WELL, "takes writes")


async def read_census(journal: Journal, clock: Clock) -> Sequence[Reading]:
    """What is open, in the whole database."""
    found = await journal.census()
    waited = 0.0 if found.oldest_ms is None else max(0, clock.now_ms() - found.oldest_ms) / 1000
    return (
        *(
            Reading(known.RUNS, number, (tenant, state.removeprefix("RUN_PHASE_").lower()))
            for (tenant, state), number in found.runs.items()
        ),
        *(Reading(known.APPROVALS_OPEN, number, (tenant,)) for tenant, number in found.approvals.items()),
        Reading(known.APPROVAL_OLDEST, waited),
    )
