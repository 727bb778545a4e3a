"""A schedule as it is stored, and as clients and the core see it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration

from control.core.cron import Cron
from control.core.times import Every, Never, Once, When
from control.core.turn import CatchUp, Firing, Overlap
from skyagent.run.v1 import event_pb2 as ev
from skyagent.schedule.v1 import schedule_service_pb2 as pb

DEFAULT_CATCH_UP = 100

OVERLAPS = MappingProxyType(
    {
        pb.OVERLAP_POLICY_UNSPECIFIED: Overlap.SKIP,
        pb.OVERLAP_POLICY_SKIP: Overlap.SKIP,
        pb.OVERLAP_POLICY_QUEUE: Overlap.QUEUE,
        pb.OVERLAP_POLICY_CANCEL_PREVIOUS: Overlap.CANCEL_PREVIOUS,
    }
)
CATCH_UPS = MappingProxyType(
    {
        pb.CATCH_UP_POLICY_UNSPECIFIED: CatchUp.ONE,
        pb.CATCH_UP_POLICY_ONE: CatchUp.ONE,
        pb.CATCH_UP_POLICY_ALL: CatchUp.ALL,
        pb.CATCH_UP_POLICY_NONE: CatchUp.NONE,
    }
)


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule. `body` is what was asked for, without anything that follows; `turn` is raised by every change."""

    schedule_id: str
    tenant: str
    creator: str
    body: bytes
    mission_id: str
    request_id: str | None
    request_digest: str
    created_ms: int
    anchor_ms: int
    paused: bool
    next_ms: int | None
    wake_ms: int | None
    turn: int = 0
    refusals: int = 0
    rest_until_ms: int = 0
    refusal: str = ""
    last_run_id: str = ""
    started: int = 0
    skipped: int = 0
    refused: int = 0
    deleted_ms: int | None = None

    @property
    def asked(self) -> pb.Schedule:
        return pb.Schedule.FromString(self.body)

    def contract(self) -> pb.Schedule:
        """As clients see it."""
        schedule = self.asked
        schedule.schedule_id, schedule.mission_id, schedule.creator = self.schedule_id, self.mission_id, self.creator
        schedule.paused, schedule.last_run_id, schedule.refusal = self.paused, self.last_run_id, self.refusal
        schedule.create_time.FromMilliseconds(self.created_ms)
        if self.next_ms is not None and not self.paused:
            schedule.next_time.FromMilliseconds(self.next_ms)
        if self.rest_until_ms:
            schedule.retry_time.FromMilliseconds(self.rest_until_ms)
        schedule.counts.started, schedule.counts.skipped = self.started, self.skipped
        schedule.counts.refused = self.refused
        return schedule


@dataclass(frozen=True, slots=True)
class StoredFiring:
    """A firing in a list: whose it is, and how its run stands."""

    schedule_id: str
    firing: Firing
    started_ms: int | None = None
    run_phase: str = ""

    def contract(self) -> pb.Firing:
        """As clients see it."""
        firing = self.firing
        shown = pb.Firing(
            schedule_id=self.schedule_id,
            cause=pb.FiringCause.Value(f"FIRING_CAUSE_{firing.cause}"),
            state=pb.FiringState.Value(f"FIRING_STATE_{firing.state}"),
            run_id=firing.run_id,
            reason=firing.reason,
        )
        shown.due_time.FromMilliseconds(firing.due_ms)
        if self.started_ms is not None:
            shown.start_time.FromMilliseconds(self.started_ms)
        if self.run_phase:
            shown.run_phase = ev.RunPhase.Value(self.run_phase)
        if firing.through_ms is not None:
            shown.through_time.FromMilliseconds(firing.through_ms)
        return shown


def when_of(asked: pb.Schedule, anchor_ms: int) -> When:
    """The times of a schedule that was checked."""
    match asked.WhichOneof("when"):
        case "cron":
            return Cron(" ".join(asked.cron.upper().split()), asked.time_zone or "UTC")
        case "at":
            return Once(asked.at.ToMilliseconds())
        case "every":
            return Every(ms_of(asked.every), anchor_ms)
        case _:
            return Never()


def waits_for(asked: pb.Schedule) -> tuple[str, ...]:
    """The missions that a schedule waits for."""
    return (asked.after_mission_id,) if asked.after_mission_id else tuple(asked.after.mission_ids)


def ms_of(duration: Duration) -> int:
    """Milliseconds, as whole ones."""
    return duration.seconds * 1000 + duration.nanos // 1_000_000
