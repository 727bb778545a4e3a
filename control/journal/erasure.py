"""What was erased of a run: the request, and the record of it that stays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from control.journal.event import StoredEvent
from control.journal.run import Projection, RunHead
from infra.errors import Precondition
from skyagent.run.v1.event_pb2 import RunPhase
from skyagent.run.v1.run_service_pb2 import RunSummary

_DIGEST = re.compile(rb"b3:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Erase:
    """Events of a run to erase; no `seqs` means all of them."""

    erasure_id: str
    run_id: str
    tenant: str
    seqs: tuple[int, ...]
    actor: str
    reason: str

    def takes(self, seq: int) -> bool:
        """Whether an event is one of them."""
        return not self.seqs or seq in self.seqs


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure that is in force. `phase` and `finished_ms` are how the run had ended."""

    erasure_id: str
    run_id: str
    mission_id: str
    tenant: str
    seqs: tuple[int, ...]
    actor: str
    reason: str
    time_ms: int
    phase: str
    finished_ms: int
    unwanted: tuple[str, ...]
    """Blobs to remove unless something else names them."""
    scrubbed: bool
    """Whether files and free pages are rid of it, too."""

    @property
    def all(self) -> bool:
        """Whether the whole run was erased."""
        return not self.seqs


@dataclass(frozen=True, slots=True)
class ErasureQuery:
    """Which erasures of a tenant, newest first."""

    tenant: str
    run_id: str = ""
    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class ErasurePage:
    """Some erasures, and how to ask for the next ones; an empty token ends the list."""

    erasures: tuple[Erasure, ...]
    next_page_token: str


class RunErased(Precondition):
    """What is asked for was erased."""

    def __init__(self, erasure: Erasure) -> None:
        super().__init__(
            "RUN_ERASED",
            f"run {erasure.run_id} was {said(erasure)}; its chain can still be verified and its events listed without"
            " what they said",
            run_id=erasure.run_id,
            erasure_id=erasure.erasure_id,
        )


class RunNotEnded(Precondition):
    """Only what has ended can be archived or erased."""

    def __init__(self, run_id: str, what: str) -> None:
        super().__init__(
            "RUN_NOT_ENDED", f"run {run_id} has not ended, so it cannot be {what}: cancel it first", run_id=run_id
        )


def said(erasure: Erasure) -> str:
    """When, by whom and why, in one sentence."""
    when = Timestamp()
    when.FromMilliseconds(erasure.time_ms)
    return f"erased on {when.ToJsonString()} by {erasure.actor} because: {erasure.reason}"


def shown(head: RunHead, erasure: Erasure) -> Projection:
    """What lists show of a run of which something was erased: that, and how it ended."""
    summary = RunSummary(run_id=head.run_id, mission_id=head.mission_id, phase=RunPhase.Value(erasure.phase))
    summary.create_time.FromMilliseconds(head.created_ms)
    summary.finish_time.FromMilliseconds(erasure.finished_ms)
    summary.update_time.FromMilliseconds(erasure.finished_ms)
    summary.summary = said(erasure)
    return Projection(erasure.phase, summary.SerializeToString(deterministic=True), terminal=True)


def digests_in(payloads: Iterable[bytes | None]) -> frozenset[str]:
    """Every text in these that could name a blob."""
    return frozenset(found.decode() for payload in payloads if payload for found in _DIGEST.findall(payload))


def without(events: Iterable[StoredEvent], erase: Erase) -> tuple[StoredEvent, ...]:
    """The events without what is to be erased."""
    return tuple(replace(event, payload=None) if erase.takes(event.seq) else event for event in events)
