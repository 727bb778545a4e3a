"""`skyagent schedules`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.mission import Wish, named_values, spec_of, split_inputs
from gateway.cli.output import console, machine_readable, print_json, print_list, print_message, when
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.cli.timetable import Times, firing_row, in_zone, moment, schedule_row
from gateway.client import Services, connected
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import load_settings
from skyagent.schedule.v1 import schedule_service_pb2 as api

COLUMNS = ("schedule", "name", "when", "next", "state", "started", "latest run")
FIRINGS = ("due", "cause", "state", "run", "phase", "why")
TIMES = ("due", "starts")

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Start missions by themselves: at times, or after others."
)

Id = Annotated[str, typer.Argument(help="Id of the schedule.")]
Cron = Annotated[str, typer.Option(help='"MINUTE HOUR DAY MONTH WEEKDAY", in --zone: "30 6 * * MON-FRI".')]
At = Annotated[str, typer.Option(help="Once: 2026-11-28T18:00, in --zone unless it names an offset.")]
Every = Annotated[str, typer.Option(help="Again and again: 90s, 15m, 6h, 1d.")]
After = Annotated[list[str], typer.Option(help="Mission that must succeed; several: all of them, each time anew.")]
Zone = Annotated[str, typer.Option(help="IANA time zone, such as Europe/Berlin; UTC if none.")]
Jitter = Annotated[str, typer.Option(help="Delay up to this, the same for the same due time: 30s.")]
Template = Annotated[str, typer.Option(help="Template to follow.")]
Goal = Annotated[str, typer.Option(help="What should be true afterwards.")]
Given = Annotated[list[str], typer.Option("--input", help="FILE, INPUT=FILE or INPUT=VALUE.")]
Values = Annotated[list[str], typer.Option("--set", help="INPUT=VALUE; may hold {{secret:name}}.")]
Site = Annotated[str, typer.Option(help="Address of the application: the input `site`.")]
Hosts = Annotated[list[str], typer.Option("--allow-host", help="Host to be reached besides the site's.")]
Above = Annotated[str, typer.Option(help="Ask a person before an amount above this is submitted.")]


class Overlap(StrEnum):
    """What happens when a run is still under way."""

    SKIP = "skip"
    QUEUE = "queue"
    CANCEL_PREVIOUS = "cancel-previous"


class CatchUp(StrEnum):
    """What happens to times that passed while no scheduler ran."""

    ONE = "one"
    ALL = "all"
    NONE = "none"


@app.command("create")
def create(  # noqa: PLR0913, PLR0917 - these are the options
    name: Annotated[str, typer.Argument(help="Name for people.")],
    template: Template = "",
    goal: Goal = "",
    given: Given = [],  # noqa: B006
    values: Values = [],  # noqa: B006
    site: Site = "",
    allow_host: Hosts = [],  # noqa: B006
    approve_above: Above = "",
    cron: Cron = "",
    at: At = "",
    every: Every = "",
    after: After = [],  # noqa: B006
    zone: Zone = "",
    jitter: Jitter = "",
    overlap: Annotated[Overlap, typer.Option(help="When a run is still under way.")] = Overlap.SKIP,
    catch_up: Annotated[CatchUp, typer.Option(help="For times that passed unseen.")] = CatchUp.ONE,
    catch_up_limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many with `all`.")] = 100,
    paused: Annotated[bool, typer.Option("--paused", help="Create it stopped.")] = False,  # noqa: FBT002
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Its runs plan and judge, and touch nothing.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Create a schedule. What `skyagent run` would refuse is refused here.

    Exit codes: 0 created, 2 wrong usage or refused, 4 denied, 69 unavailable.
    """
    schedule = Times(cron, at, every, tuple(after), zone, jitter).contract()
    schedule.name, schedule.paused, schedule.catch_up_limit = name, paused, catch_up_limit
    schedule.overlap, schedule.catch_up = _overlap(overlap), _catch_up(catch_up)
    files, inputs = split_inputs(given)
    inputs |= {**({"site": site} if site else {}), **named_values("--set", values)}
    wish = Wish(template, goal.strip(), files, inputs, "auto", tuple(allow_host), approve_above, dry_run)

    async def work(services: Services) -> api.Schedule:
        schedule.spec.CopyFrom(await spec_of(wish, services))
        request = api.CreateScheduleRequest(schedule=schedule, request_id=system_ids(SystemClock()).uuid())
        return (await services.schedules.CreateSchedule(request)).schedule

    _shown(work, json_lines=json_lines)


@app.command("ls")
def list_schedules(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List schedules, next due first."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            found = (await services.schedules.ListSchedules(api.ListSchedulesRequest(page_size=limit))).schedules
        print_list(found, COLUMNS, [schedule_row(schedule) for schedule in found], json_lines=json_lines)

    perform(work())


@app.command("get")
def get_schedule(
    schedule_id: Id,
    firings: Annotated[int, typer.Option(min=1, max=1000, help="How many of its latest firings.")] = 20,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Show a schedule and what became of its latest due times; with --json, the schedule and then one line for each."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            asked = api.GetScheduleRequest(schedule_id=schedule_id)
            schedule = (await services.schedules.GetSchedule(asked)).schedule
            request = api.ListFiringsRequest(schedule_id=schedule_id, page_size=firings)
            found = (await services.schedules.ListFirings(request)).firings
        print_list([schedule], COLUMNS, [schedule_row(schedule)], json_lines=json_lines)
        if not machine_readable(json_lines=json_lines):
            console.print()
        if schedule.refusal and not machine_readable(json_lines=json_lines):
            console.print(f"refused: {schedule.refusal}; rests until {when(schedule.retry_time)}\n", markup=False)
        zone = schedule.time_zone
        print_list(found, FIRINGS, [firing_row(firing, zone) for firing in found], json_lines=json_lines)

    perform(work())


@app.command("update")
def update(  # noqa: PLR0913, PLR0917 - these are the options
    schedule_id: Id,
    name: Annotated[str, typer.Option(help="Another name.")] = "",
    cron: Cron = "",
    at: At = "",
    every: Every = "",
    after: After = [],  # noqa: B006
    zone: Zone = "",
    jitter: Jitter = "",
    overlap: Annotated[Overlap | None, typer.Option(help="When a run is still under way.")] = None,
    catch_up: Annotated[CatchUp | None, typer.Option(help="For times that passed unseen.")] = None,
    catch_up_limit: Annotated[int | None, typer.Option(min=1, max=1000, help="At most so many with `all`.")] = None,
    goal: Goal = "",
    values: Values = [],  # noqa: B006
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Change what is named; everything else stays."""
    times = Times(cron, at, every, tuple(after), zone, jitter).contract(needed=False)

    async def work(services: Services) -> api.Schedule:
        found = await services.schedules.GetSchedule(api.GetScheduleRequest(schedule_id=schedule_id))
        schedule = found.schedule
        kind = times.WhichOneof("when")
        if kind:
            schedule.ClearField(kind)  # lists would grow
        schedule.MergeFrom(times)
        schedule.name, schedule.spec.goal = name or schedule.name, goal.strip() or schedule.spec.goal
        schedule.overlap = _overlap(overlap) if overlap else schedule.overlap
        schedule.catch_up = _catch_up(catch_up) if catch_up else schedule.catch_up
        schedule.catch_up_limit = catch_up_limit or schedule.catch_up_limit
        _set_inputs(schedule, named_values("--set", values))
        request = api.UpdateScheduleRequest(schedule_id=schedule_id, schedule=schedule)
        return (await services.schedules.UpdateSchedule(request)).schedule

    _shown(work, json_lines=json_lines)


@app.command("pause")
def pause(schedule_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Stop a schedule: nothing of it starts until it is resumed."""

    async def work(services: Services) -> api.Schedule:
        return (await services.schedules.PauseSchedule(api.PauseScheduleRequest(schedule_id=schedule_id))).schedule

    _shown(work, json_lines=json_lines)


@app.command("resume")
def resume(schedule_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Let a schedule go on from now; times that passed meanwhile are left out."""

    async def work(services: Services) -> api.Schedule:
        return (await services.schedules.ResumeSchedule(api.ResumeScheduleRequest(schedule_id=schedule_id))).schedule

    _shown(work, json_lines=json_lines)


@app.command("trigger")
def trigger(schedule_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Start its mission now, beside its times."""

    async def work() -> None:
        request = api.TriggerScheduleRequest(schedule_id=schedule_id, request_id=system_ids(SystemClock()).uuid())
        async with connected(load_settings()) as services:
            answer = await services.schedules.TriggerSchedule(request)
        if machine_readable(json_lines=json_lines):
            print_message(answer)
        else:
            console.print(f"started {answer.run_id}; `skyagent runs watch {answer.run_id}` follows it")

    perform(work())


@app.command("backfill")
def backfill(
    schedule_id: Id,
    start: Annotated[str, typer.Option("--from", help="From this moment on, in the schedule's zone.")],
    end: Annotated[str, typer.Option("--to", help="Up to this moment, in the schedule's zone.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be started.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Start its mission for past due times that had no run, one after the other; at most 1,000."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            found = await services.schedules.GetSchedule(api.GetScheduleRequest(schedule_id=schedule_id))
            zone = found.schedule.time_zone
            request = api.BackfillScheduleRequest(
                schedule_id=schedule_id,
                start_time=moment("--from", start, zone),
                end_time=moment("--to", end, zone),
                dry_run=dry_run,
            )
            answer = await services.schedules.BackfillSchedule(request)
        print_list(
            answer.firings, FIRINGS, [firing_row(firing, zone) for firing in answer.firings], json_lines=json_lines
        )
        if not machine_readable(json_lines=json_lines):
            doing = "would be started" if dry_run else "are started, one after the other"
            console.print(f"{answer.waiting} {doing}")

    perform(work())


@app.command("delete")
def delete(schedule_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Delete a schedule. Runs that it started go on."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            await services.schedules.DeleteSchedule(api.DeleteScheduleRequest(schedule_id=schedule_id))
        if machine_readable(json_lines=json_lines):
            print_json({"deleted": schedule_id})
        else:
            console.print(f"deleted {schedule_id}")

    perform(work())


@app.command("next")
def due_times(
    schedule_id: Id,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 10,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Show its due times to come, in its zone, and when each is started."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            request = api.ListDueTimesRequest(schedule_id=schedule_id, count=count)
            answer = await services.schedules.ListDueTimes(request)
        rows = [
            tuple(in_zone(at, answer.time_zone) for at in (one.due_time, one.start_time)) for one in answer.due_times
        ]
        print_list(answer.due_times, TIMES, rows, json_lines=json_lines)

    perform(work())


def _shown(work: Callable[[Services], Awaitable[api.Schedule]], *, json_lines: bool) -> None:
    async def performed() -> None:
        async with connected(load_settings()) as services:
            schedule = await work(services)
        print_list([schedule], COLUMNS, [schedule_row(schedule)], json_lines=json_lines)

    perform(performed())


def _set_inputs(schedule: api.Schedule, values: Mapping[str, str]) -> None:
    for name, value in values.items():
        known = next((one for one in schedule.spec.inputs if one.name == name), None) or schedule.spec.inputs.add(
            name=name
        )
        known.value = value


def _overlap(word: Overlap) -> api.OverlapPolicy.ValueType:
    return api.OverlapPolicy.Value(f"OVERLAP_POLICY_{word.name}")


def _catch_up(word: CatchUp) -> api.CatchUpPolicy.ValueType:
    return api.CatchUpPolicy.Value(f"CATCH_UP_POLICY_{word.name}")
