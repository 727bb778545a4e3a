"""Times of schedules: as people write them, and as they are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from gateway.cli.output import phase
from infra.errors import InvalidArgument, Violation
from skyagent.run.v1 import event_pb2 as ev
from skyagent.schedule.v1 import schedule_service_pb2 as api

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = 100 * 366 * 86400
_LENGTH = re.compile(r"(\d+)(s|m|h|d)")


@dataclass(frozen=True, slots=True)
class Times:
    """What was said on the command line; empty is not said."""

    cron: str
    at: str
    every: str
    after: tuple[str, ...]
    zone: str
    jitter: str

    def contract(self, *, needed: bool = True) -> api.Schedule:
        """What it means; raises InvalidArgument when it is none, several or unreadable."""
        schedule = api.Schedule(time_zone=self.zone)
        said = {"--cron": self.cron, "--at": self.at, "--every": self.every, "--after": self.after}
        given = [option for option, value in said.items() if value]
        if len(given) > 1 or (needed and not given):
            problem = f"{' and '.join(given)} exclude each other" if given else "say when it is to start"
            raise _bad("", f"{problem}: give one of {', '.join(said)}")
        if self.cron:
            schedule.cron = self.cron
        if self.at:
            schedule.at.CopyFrom(moment("--at", self.at, self.zone))
        if self.every:
            schedule.every.CopyFrom(_length("--every", self.every))
        if self.after:
            schedule.after.mission_ids.extend(self.after)
        if self.jitter:
            schedule.jitter.CopyFrom(_length("--jitter", self.jitter))
        return schedule


def moment(option: str, text: str, zone: str) -> Timestamp:
    """ISO 8601; without an offset it is meant in the zone."""
    found = Timestamp()
    try:
        read = datetime.fromisoformat(text)
        found.FromDatetime((read if read.tzinfo else read.replace(tzinfo=ZoneInfo(zone or "UTC"))).astimezone(UTC))
    except (ValueError, OverflowError, OSError, KeyError) as bad:
        problem = f"{text!r} is no moment such as 2026-11-28T18:00 or 2026-11-28T18:00+01:00 ({bad})"
        raise _bad(option, problem) from bad
    return found


def in_zone(time: Timestamp, zone: str) -> str:
    """A time for a person, in the schedule's zone."""
    if not time.seconds:
        return "-"
    there = datetime.fromtimestamp(time.seconds, UTC).astimezone(ZoneInfo(zone or "UTC"))
    return there.strftime("%a %Y-%m-%d %H:%M:%S %Z")


def schedule_row(schedule: api.Schedule) -> tuple[str | Text, ...]:
    """A schedule in a list."""
    state = "paused" if schedule.paused else "refused, rests" if schedule.refusal else "on"
    style = {"paused": "yellow", "on": "green"}.get(state, "red")
    return (
        schedule.schedule_id,
        schedule.name,
        _when(schedule),
        in_zone(schedule.next_time, schedule.time_zone),
        Text(state, style),
        str(schedule.counts.started),
        schedule.last_run_id or "-",
    )


def firing_row(firing: api.Firing, zone: str) -> tuple[str | Text, ...]:
    """A firing in a list."""
    due = in_zone(firing.due_time, zone)
    if firing.HasField("through_time"):
        due = f"{due} … {in_zone(firing.through_time, zone)}"
    return (
        due,
        api.FiringCause.Name(firing.cause).removeprefix("FIRING_CAUSE_").lower().replace("_", " "),
        api.FiringState.Name(firing.state).removeprefix("FIRING_STATE_").lower(),
        firing.run_id or "-",
        phase(ev.RunPhase.Name(firing.run_phase)) if firing.run_phase else "-",
        firing.reason,
    )


def _when(schedule: api.Schedule) -> str:
    match schedule.WhichOneof("when"):
        case "cron":
            return f"{schedule.cron} {schedule.time_zone or 'UTC'}"
        case "at":
            return f"once {in_zone(schedule.at, schedule.time_zone)}"
        case "every":
            return f"every {schedule.every.ToTimedelta()}"
        case "after_mission_id":
            return f"after {schedule.after_mission_id}"
        case _:
            return f"after {' and '.join(schedule.after.mission_ids)}"


def _length(option: str, text: str) -> Duration:
    """90s, 15m, 6h, 1d, or several of these in a row; 0s is none."""
    parts = _LENGTH.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise _bad(option, f"{text!r} is no length of time such as 90s, 15m or 1h30m")
    return Duration(seconds=min(sum(int(number) * _UNITS[unit] for number, unit in parts), _LONGEST))


def _bad(option: str, problem: str) -> InvalidArgument:
    return InvalidArgument(Violation(option, problem), reason="BAD_OPTION")
