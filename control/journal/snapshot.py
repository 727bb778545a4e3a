"""A folded state kept so that a run need not be folded from its first event."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_AFTER = 500


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after `seq`, by the fold of `fold_version`. Never truth: it can be dropped at any time."""

    run_id: str
    seq: int
    fold_version: int
    state: bytes


def due(seq: int, kept_seq: int, *, ended: bool) -> bool:
    """Whether to keep the state after a commit that ended at `seq`, when the last one was kept at `kept_seq`.

    Less and less often as the run grows, so that what it costs stays in proportion to its length; and at the end.
    """
    return ended or seq - kept_seq >= max(FIRST_AFTER, kept_seq // 4)
