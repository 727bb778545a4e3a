"""Cron expressions in IANA time zones: which moments they mean. Pure.

The rules of Debian's cron (crontab(5), "daylight saving"), by way of cronsim: what falls into the hour that is skipped
runs right after it, what falls into the hour that comes twice runs once; unless minute or hour begin with a star, for
then the entry means real time that passes and not a time of the day.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from infra.errors import InvalidArgument, Violation

_FIELDS = 5
_FORM = "minute 0-59, hour 0-23, day of month 1-31, month 1-12 or JAN-DEC, day of week 0-7 or SUN-SAT"
_LAST_YEAR = 9900
"""No time is looked for that a Timestamp could not carry."""


@dataclass(frozen=True, slots=True)
class Cron:
    """An expression of five fields, and the zone whose clocks it means. Make it with `cron`."""

    expression: str
    zone: str

    def after(self, after_ms: int) -> Iterator[int]:
        """The moments after one, in order, in milliseconds since the Unix epoch; ends where the calendar does."""
        start = datetime.fromtimestamp(after_ms // 1000, UTC)
        if start.year >= _LAST_YEAR:
            return
        last_ms = after_ms
        for found in CronSim(self.expression, start.astimezone(_zone(self.zone))):
            # Where clocks go back, a time of the day may come out that was before.
            found_ms = round(found.timestamp()) * 1000
            if found_ms > last_ms:
                yield found_ms
                last_ms = found_ms


def cron(expression: str, zone: str, *, field: str, zone_field: str) -> Cron:
    """A checked expression; an empty zone is UTC. Raises InvalidArgument, which names the field at fault."""
    made = Cron(" ".join(expression.upper().split()), zone_named(zone, field=zone_field))
    fields = len(made.expression.split())
    if fields != _FIELDS:
        problem = f"{expression!r} has {fields} fields, a cron expression has {_FIELDS}: {_FORM}"
        raise InvalidArgument(Violation(field, problem), reason="BAD_CRON")
    try:
        first = next(made.after(0), None)
    except CronSimError as bad:
        wrong = str(bad).removeprefix("Bad ")
        problem = f"{expression!r} has a {wrong} that does not exist; the fields are {_FORM}"
        raise InvalidArgument(Violation(field, problem), reason="BAD_CRON") from bad
    if first is None:
        raise InvalidArgument(Violation(field, f"{expression!r} means no date that there is"), reason="BAD_CRON")
    return made


def zone_named(name: str, *, field: str) -> str:
    """The zone itself, UTC for none. Raises InvalidArgument for what the IANA database does not have."""
    if name and name not in _names():
        near = get_close_matches(name, _names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "give a name such as Europe/Berlin or UTC"
        raise InvalidArgument(Violation(field, f"there is no time zone {name!r}; {hint}"), reason="BAD_TIME_ZONE")
    return name or "UTC"


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> tzinfo:
    # cronsim knows UTC only by this very object, and goes through it faster.
    return UTC if name == "UTC" else ZoneInfo(name)
