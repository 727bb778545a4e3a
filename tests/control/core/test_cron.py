from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.core.cron import Cron, cron, zone_named
from infra.errors import InvalidArgument

DAY_MS = 86_400_000


def made(expression: str, zone: str = "UTC") -> Cron:
    return cron(expression, zone, field="schedule.cron", zone_field="schedule.time_zone")


def ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


def starts(expression: str, zone: str, after: str, many: int) -> list[str]:
    """The next times as the zone's own clocks show them, with their offset."""
    found = islice(made(expression, zone).after(ms(after)), many)
    return [datetime.fromtimestamp(at / 1000, ZoneInfo(zone)).isoformat(timespec="minutes") for at in found]


@pytest.mark.parametrize(
    ("zone", "expression", "after", "times"),
    [
        # Clocks go from 2:00 to 3:00.
        ("Europe/Berlin", "30 2 * * *", "2026-03-28T03:00+01:00", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        # Clocks go from 2:00 to 3:00.
        (
            "America/New_York",
            "15 2 * * *",
            "2026-03-07T03:00-05:00",
            ["2026-03-08T03:00-04:00", "2026-03-09T02:15-04:00"],
        ),
        # Clocks go from 2:00 to 2:30: half an hour.
        (
            "Australia/Lord_Howe",
            "10 2 * * *",
            "2026-10-03T03:00+10:30",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:10+11:00"],
        ),
    ],
)
def test_what_falls_into_the_skipped_hour_starts_right_after_it(
    zone: str, expression: str, after: str, times: list[str]
) -> None:
    assert starts(expression, zone, after, 2) == times


@pytest.mark.parametrize(
    ("zone", "expression", "after", "times"),
    [
        ("Europe/Berlin", "30 2 * * *", "2026-10-24T03:00+02:00", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        (
            "America/New_York",
            "30 1 * * *",
            "2026-10-31T03:00-04:00",
            ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"],
        ),
        # Clocks go from 2:00 back to 1:30.
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "2026-04-04T03:00+11:00",
            ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"],
        ),
    ],
)
def test_what_falls_into_the_repeated_hour_starts_once(
    zone: str, expression: str, after: str, times: list[str]
) -> None:
    assert starts(expression, zone, after, 2) == times


@pytest.mark.parametrize("first", ["2026-10-25T02:15+02:00", "2026-10-25T02:45+02:00", "2026-10-25T02:15+01:00"])
def test_a_scheduler_that_begins_within_the_repeated_hour_starts_nothing_twice(first: str) -> None:
    (found,) = starts("30 2 * * *", "Europe/Berlin", first, 1)
    assert found == ("2026-10-25T02:30+02:00" if first == "2026-10-25T02:15+02:00" else "2026-10-26T02:30+01:00")


def test_a_star_means_time_that_passes_and_not_a_time_of_the_day() -> None:
    repeated = starts("0 * * * *", "Europe/Berlin", "2026-10-25T01:30+02:00", 3)
    assert repeated == ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]
    skipped = starts("0 * * * *", "Europe/Berlin", "2026-03-29T01:30+01:00", 2)
    assert skipped == ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]


def test_several_times_of_the_skipped_hour_become_one() -> None:
    assert starts("0,20,40 2 * * *", "Europe/Berlin", "2026-03-28T23:00+01:00", 2) == [
        "2026-03-29T03:00+02:00",
        "2026-03-30T02:00+02:00",
    ]


@given(
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca"]),
    expression=st.sampled_from(
        ["30 2 * * *", "*/7 * * * *", "0 */3 * * *", "15 1-3 * * SUN", "0 0 L * *", "59 23 29 2 *"]
    ),
    after=st.datetimes(datetime(1970, 1, 2), datetime(2090, 1, 1)),  # noqa: DTZ001 -- it becomes UTC below
)
def test_times_rise_and_none_is_left_out_wherever_the_search_begins(
    zone: str, expression: str, after: datetime
) -> None:
    after_ms = round(after.replace(tzinfo=UTC).timestamp() * 1000)
    found = list(islice(made(expression, zone).after(after_ms), 6))
    assert found[0] > after_ms
    assert all(earlier < later for earlier, later in pairwise(found))
    for position, due in enumerate(found[:-1]):
        assert next(made(expression, zone).after(due)) == found[position + 1]
        assert next(made(expression, zone).after(due - 1)) == due


def fields_at_fault(text: str) -> list[str]:
    try:
        return [] if next(made(text).after(0)) > 0 else ["not after"]
    except InvalidArgument as bad:
        return [violation.field for violation in bad.violations]


@given(st.one_of(st.text(max_size=40), st.text("0123456789*/,-#LW MONTUEJAN", max_size=24)))
def test_whatever_is_written_is_taken_or_refused_with_its_field(text: str) -> None:
    assert fields_at_fault(text) in ([], ["schedule.cron"])


@pytest.mark.parametrize(
    "text", ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 32 * *", "0 0 30 2 *", "@daily"]
)
def test_an_expression_that_means_nothing_is_refused_and_told_how_it_should_look(text: str) -> None:
    with pytest.raises(InvalidArgument, match="minute 0-59") as refused:
        made(text)
    assert refused.value.reason == "BAD_CRON"


@pytest.mark.parametrize("name", ["Europe/Berln", "../../etc/passwd", "/etc/passwd", "Europe", "\0", "CEST5"])
def test_a_zone_that_there_is_not_is_refused_by_its_field(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        zone_named(name, field="schedule.time_zone")
    assert refused.value.violations[0].field == "schedule.time_zone"


def test_a_zone_that_is_nearly_right_is_suggested() -> None:
    with pytest.raises(InvalidArgument, match="did you mean Europe/Berlin"):
        zone_named("Europe/Berln", field="schedule.time_zone")


def test_no_zone_is_utc() -> None:
    assert zone_named("", field="schedule.time_zone") == "UTC"
