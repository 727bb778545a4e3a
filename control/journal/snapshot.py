"""A folded state kept so that a run need not be folded from its first event."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after `seq`, by the fold of `fold_version`. Never truth: it can be dropped at any time."""

    run_id: str
    seq: int
    fold_version: int
    state: bytes
