"""Whether a run's log was set back: its workers keep the keys of what they did, also when nobody asks any more."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.run import LOG_BEHIND, RunFold
from control.journal.folding import event_of
from control.orchestrator.ledger import Ledger
from control.orchestrator.links import Key, WorkerLink
from skyagent.run.v1 import event_pb2 as ev

_NAMED = 3
"""How many steps the detail names: a log that was set back lacks the last ones."""


async def done_unknown(ledger: Ledger, link: WorkerLink) -> str:
    """What a worker has done of the run that its log does not know, and no person was told of; empty when nothing."""
    unknown = [key for key in link.let_go_of(ledger.head.run_id) if not _known(ledger.folded, key)]
    unknown = sorted(unknown, key=lambda key: (key.step_id, key.attempt))[:_NAMED]  # the same ones whenever it is asked
    if not unknown or await told(ledger, unknown):
        return ""
    return f"has done {' and '.join(f'step {key.step_id}' for key in unknown)}"


def _known(folded: RunFold, key: Key) -> bool:
    attempt = folded.attempt(key.step_id, key.attempt)
    return attempt is not None and attempt.intended_seq > 0


async def told(ledger: Ledger, keys: Sequence[Key]) -> bool:
    """Whether the run was parked because of all of these before: then a person has let it go on."""
    said, seq = "", 0
    while page := await ledger.journal.read(ledger.head.run_id, after_seq=seq):
        seq = page[-1].seq
        for stored in page:
            if stored.kind == ev.EventBody.RUN_BLOCKED_FIELD_NUMBER:
                blocked = event_of(stored).body.run_blocked
                said += blocked.detail if blocked.reason == LOG_BEHIND else ""
    return all(key.step_id in said for key in keys)
