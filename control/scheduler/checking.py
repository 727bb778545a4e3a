"""What somebody asks for, held against what can be: every problem names its field and its remedy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from control.core.cron import cron, zone_named
from control.core.times import Every, Once, When, due_within
from control.scheduler.row import DEFAULT_CATCH_UP, ms_of, waits_for, when_of
from infra.errors import InvalidArgument, Violation
from skyagent.schedule.v1 import schedule_service_pb2 as pb

SHORTEST_MS = 1_000
LONGEST_MS = 10 * 366 * 86_400_000
MOST_AT_ONCE = 1_000
"""Due times of one backfill."""
_LOOKED_AT = 50
_ULID = re.compile("[0-9A-HJKMNP-TV-Z]{26}")


@dataclass(frozen=True, slots=True)
class Asked:
    """A schedule that can be kept: what was asked, and what it means."""

    body: pb.Schedule
    when: When
    upstream: tuple[str, ...]


def checked(given: pb.Schedule, now_ms: int) -> Asked:
    """Raises InvalidArgument with one violation for the first problem of the times."""
    body = pb.Schedule(
        name=given.name,
        spec=given.spec,
        time_zone=given.time_zone,
        overlap=given.overlap,
        catch_up=given.catch_up,
        jitter=given.jitter if given.HasField("jitter") else None,
        catch_up_limit=given.catch_up_limit or DEFAULT_CATCH_UP,
    )
    match given.WhichOneof("when"):
        case "cron":
            body.cron = given.cron
            cron(given.cron, given.time_zone, field="schedule.cron", zone_field="schedule.time_zone")
        case "at":
            body.at.CopyFrom(given.at)
        case "every":
            body.every.CopyFrom(given.every)
        case "after_mission_id":
            body.after_mission_id = given.after_mission_id
        case _:
            body.after.CopyFrom(given.after)
    zone_named(given.time_zone, field="schedule.time_zone")
    when, upstream = when_of(body, now_ms), waits_for(body)
    problem = _problem(body, when, upstream, now_ms)
    if problem is not None:
        raise InvalidArgument(problem, reason="BAD_SCHEDULE")
    return Asked(body, when, upstream)


def _problem(body: pb.Schedule, when: When, upstream: tuple[str, ...], now_ms: int) -> Violation | None:
    if isinstance(when, Once) and when.at_ms <= now_ms:
        moment = body.at.ToJsonString()
        return Violation("schedule.at", f"{moment} is over: give a moment to come, or start the mission now")
    if isinstance(when, Every) and not SHORTEST_MS <= when.interval_ms <= LONGEST_MS:
        return Violation("schedule.every", f"{when.interval_ms / 1000:g} s is no interval: give 1 s to 10 years")
    if not all(_ULID.fullmatch(mission) for mission in upstream):
        return Violation("schedule.after_mission_id", f"{upstream[0]!r} is no id of a mission")
    jitter_ms = ms_of(body.jitter)
    times = due_within(when, now_ms, now_ms + LONGEST_MS, _LOOKED_AT)
    gap_ms = min((later - earlier for earlier, later in pairwise(times)), default=LONGEST_MS)
    if jitter_ms >= gap_ms:
        problem = f"{jitter_ms / 1000:g} s is not less than the {gap_ms / 1000:g} s between two due times: shorten it"
        return Violation("schedule.jitter", problem)
    return None


def same_times(before: pb.Schedule, given: pb.Schedule) -> bool:
    """Whether both mean the same times, so that what has begun to count goes on."""
    kind = given.WhichOneof("when")
    if kind is None or kind != before.WhichOneof("when"):
        return False
    same = getattr(before, kind) == getattr(given, kind)
    return same and (before.time_zone, before.jitter) == (given.time_zone, given.jitter)


def due_in_range(when: When, request: pb.BackfillScheduleRequest, now_ms: int) -> tuple[int, ...]:
    """The due times of a past range. Raises InvalidArgument."""
    start_ms, end_ms = request.start_time.ToMilliseconds(), request.end_time.ToMilliseconds()
    if start_ms < 0:
        raise InvalidArgument(Violation("start_time", "it lies before 1970: no schedule was due then"))
    if end_ms < start_ms:
        raise InvalidArgument(Violation("end_time", "it lies before start_time: exchange them"))
    if end_ms > now_ms:
        raise InvalidArgument(Violation("end_time", "it lies in the future: what is to come starts by itself"))
    times = due_within(when, start_ms - 1, end_ms, MOST_AT_ONCE + 1)
    if len(times) > MOST_AT_ONCE:
        raise InvalidArgument(
            Violation("end_time", f"the range has more than {MOST_AT_ONCE:,} due times: make it shorter")
        )
    return times
