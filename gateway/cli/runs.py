"""`skyagent runs`, and `skyagent missions` for those who think of missions: their verbs act on the latest run."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Annotated

import grpc
import typer
from rich.text import Text

from control.core.run import RunFold
from gateway.cli import comparing
from gateway.cli.amounts import Money, Steps, Tokens, WallTime, some
from gateway.cli.asking import somebody_is_there
from gateway.cli.exits import Exit
from gateway.cli.mission import named_values
from gateway.cli.outcome import exit_of_run
from gateway.cli.output import console, machine_readable, phase, plain, print_json, print_list, print_message, when
from gateway.cli.retention import (
    ARCHIVED,
    ERASE_SECONDS,
    ERASURES,
    archived,
    ended_before,
    erasure_row,
    seconds_of,
    seqs_of,
)
from gateway.cli.session import perform
from gateway.cli.tree import run_view
from gateway.cli.watch import Answers, Watch
from gateway.client import Services, connected
from infra.clock import SystemClock
from infra.errors import InvalidArgument, Precondition, Violation
from infra.ids import system_ids
from infra.settings import load_settings
from skyagent.budget.v1 import budget_service_pb2 as budgets
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission_pb
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api

COLUMNS = ("run", "phase", "goal", "doing", "started", "attempts", "waiting")
GOAL_WIDTH = 48

Json = Annotated[bool, typer.Option("--json", help="JSON lines even on a terminal.")]
Id = Annotated[str, typer.Argument(help="Id of the run, or of the mission whose latest run is meant.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show, watch and control runs.")


@app.command("ls")
def list_runs(
    mission: Annotated[str, typer.Option(help="Only of this mission.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List runs, newest first."""
    perform(_list(api.ListRunsRequest(mission_id=mission, page_size=limit), json_lines=json_lines))


@app.command("get")
def get_run(run_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Show a run as its journal says; the exit code is that of the run."""
    raise typer.Exit(perform(_get(run_id, json_lines=json_lines)))


@app.command("watch")
def watch_run(run_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Follow a run to its end, across restarts of whatever is between; the exit code is that of the run."""
    raise typer.Exit(perform(_watch(run_id, json_lines=machine_readable(json_lines=json_lines))))


@app.command("pause")
def pause_run(run_id: Id, reason: Annotated[str, typer.Option(help="Why.")] = "") -> None:
    """Pause a run: when this returns, nothing of it starts any more."""

    async def command(services: Services, run: str, request_id: str) -> api.RunSummary:
        return (await services.runs.PauseRun(api.PauseRunRequest(run_id=run, request_id=request_id, reason=reason))).run

    perform(_control(run_id, command))


@app.command("resume")
def resume_run(run_id: Id) -> None:
    """Let a paused run go on."""

    async def command(services: Services, run: str, request_id: str) -> api.RunSummary:
        return (await services.runs.ResumeRun(api.ResumeRunRequest(run_id=run, request_id=request_id))).run

    perform(_control(run_id, command))


@app.command("cancel")
def cancel_run(run_id: Id, reason: Annotated[str, typer.Option(help="Why.")] = "") -> None:
    """Cancel a run: when this returns, nothing of it starts any more."""

    async def command(services: Services, run: str, request_id: str) -> api.RunSummary:
        asked = api.CancelRunRequest(run_id=run, request_id=request_id, reason=reason)
        return (await services.runs.CancelRun(asked)).run

    perform(_control(run_id, command))


@app.command("steer")
def steer_run(
    run_id: Id,
    message: Annotated[str, typer.Argument(help="What its planner should consider from now on.")] = "",
    goal: Annotated[str, typer.Option(help="Another goal from now on.")] = "",
) -> None:
    """Tell the planner of a run something, or give it another goal; says what that planner makes of it."""
    asked = api.SteerRunRequest(message=message, goal=goal)

    async def command(services: Services, run: str, request_id: str) -> api.RunSummary:
        asked.run_id, asked.request_id = run, request_id
        answer = await services.runs.SteerRun(asked)
        if answer.note:
            print(f"skyagent: {answer.note}", file=sys.stderr)
        return answer.run

    perform(_control(run_id, command))


@app.command("topup")
def top_up_run(run_id: Id, steps: Steps = "", money: Money = "", tokens: Tokens = "", wall_time: WallTime = "") -> None:
    """Give a run more than it may use; one that waits for it goes on by itself.

    Exit codes: 0 given, 1 nothing limits it, 2 usage, 5 the tenant's budget has not so much left.
    """
    amounts = some(steps=steps, money=money, tokens=tokens, wall_time=wall_time)

    async def command(services: Services, run: str, _: str) -> api.RunSummary:
        ids = system_ids(SystemClock())
        asked = [
            budgets.TopUpRunRequest(run_id=run, kind=kind, amount=units, request_id=ids.uuid())
            for kind, units in amounts.items()
        ]
        answers = [await services.budgets.TopUpRun(each) for each in asked]
        return answers[-1].run

    perform(_control(run_id, command))


@app.command("adjust")
def adjust_run(
    run_id: Id,
    priority: Annotated[
        int | None, typer.Option(min=-1000, max=1000, help="Higher goes first among runs that wait for a worker.")
    ] = None,
    within: Annotated[
        int | None, typer.Option(min=1, help="Seconds from now in which it must have ended, or it fails.")
    ] = None,
    max_attempts: Annotated[int | None, typer.Option(min=1, max=10, help="Attempts in the same state.")] = None,
    max_restarts: Annotated[int | None, typer.Option(min=0, max=20, help="How often a group may start again.")] = None,
    first_delay: Annotated[int | None, typer.Option(min=0, max=600_000, help="Milliseconds before a retry.")] = None,
    longest_delay: Annotated[int | None, typer.Option(min=0, max=600_000, help="No delay is longer.")] = None,
    usual_retries: Annotated[bool, typer.Option("--usual-retries", help="Retry as it was planned.")] = False,  # noqa: FBT002
) -> None:
    """Change a run's place among others, when it must have ended, or how it retries.

    Of how it retries, what is not named is again as it was planned.
    """
    asked = [api.AdjustRunRequest(priority=priority)] if priority is not None else []
    if within is not None:
        asked.append(api.AdjustRunRequest())
        asked[-1].deadline.FromMilliseconds(SystemClock().now_ms() + within * 1000)
    retry = _retries(max_attempts, max_restarts, first_delay, longest_delay)
    if usual_retries or retry != cmd.RetryPolicy():
        asked.append(api.AdjustRunRequest(retry=retry))
    if not asked:
        told = "say what is to be changed: --priority, --within, --max-attempts, --max-restarts, or a delay"
        raise InvalidArgument(Violation("", told))

    async def command(services: Services, run: str, _: str) -> api.RunSummary:
        ids = system_ids(SystemClock())
        for each in asked:
            each.run_id, each.request_id = run, ids.uuid()
        answers = [await services.runs.AdjustRun(each) for each in asked]
        return answers[-1].run

    perform(_control(run_id, command))


def _retries(
    attempts: int | None, restarts: int | None, first_ms: int | None, longest_ms: int | None
) -> cmd.RetryPolicy:
    policy = cmd.RetryPolicy(max_attempts=attempts, max_restarts=restarts)
    if first_ms is not None:
        policy.first_delay.FromMilliseconds(first_ms)
    if longest_ms is not None:
        policy.longest_delay.FromMilliseconds(longest_ms)
    return policy


@app.command("resolve")
def resolve_step(
    run_id: Id,
    step_id: Annotated[str, typer.Argument(help="Id of the uncertain step; `runs get RUN --json` names it.")],
    happened: Annotated[bool, typer.Option("--happened/--did-not-happen", help="What you found out.")],
    note: Annotated[str, typer.Option(help="How you know.")] = "",
) -> None:
    """Say whether an uncertain step happened, so that its run can go on."""
    effect = eff.EFFECT_DONE if happened else eff.EFFECT_NONE

    async def command(services: Services, run: str, request_id: str) -> api.RunSummary:
        asked = api.ResolveStepRequest(run_id=run, step_id=step_id, effect=effect, note=note, request_id=request_id)
        return (await services.runs.ResolveStep(asked)).run

    perform(_control(run_id, command))


@app.command("fork")
def fork_run(
    run_id: Id,
    at: Annotated[int, typer.Option("--at", min=1, help="The last event that the new run keeps.")],
    goal: Annotated[str, typer.Option(help="Another goal.")] = "",
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="INPUT=VALUE, for what is still to be planned.")
    ] = None,
    repeat_effects: Annotated[  # noqa: FBT002
        bool, typer.Option("--repeat-effects", help="Plan and do again what is not planned yet at that event.")
    ] = False,
    request_id: Annotated[str, typer.Option(help="A UUID; the same one is the same fork.")] = "",
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Start a new run from an event of another, with what was known there as facts and none of its rights."""
    changed = [
        mission_pb.Input(name=name, value=value) for name, value in named_values("--input", inputs or []).items()
    ]
    asked = api.ForkRunRequest(seq=at, goal=goal, inputs=changed, repeat_effects=repeat_effects, request_id=request_id)
    perform(_fork(run_id, asked, json_lines=json_lines))


@app.command("replay")
def replay_run(run_id: Id, json_lines: Json = False) -> None:  # noqa: FBT002
    """Decide a run again from its record, with network, model and workers off.

    Exit code 0: the same events came out. 1: one would be another now; it is named, with both versions.
    """
    raise typer.Exit(perform(comparing.replay(run_id, json_lines=json_lines)))


@app.command("diff")
def diff_runs(
    one: Annotated[str, typer.Argument(help="Id of a run.")],
    other: Annotated[str, typer.Argument(help="Id of another run, for instance its fork.")],
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Say where two runs part, and which of their steps ended otherwise. Exit code 0: nowhere. 1: they part."""
    raise typer.Exit(perform(comparing.diff(one, other, json_lines=json_lines)))


@app.command("archive")
def archive_runs(
    run_ids: Annotated[list[str] | None, typer.Argument(help="Runs that have ended.")] = None,
    older_than: Annotated[str, typer.Option(help="All that ended longer ago, as in 30d or 12h.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Move journals of ended runs into compressed files; they stay listed, readable and verifiable."""
    if bool(run_ids) == bool(older_than):
        raise InvalidArgument(Violation("", "name runs, or say --older-than, and not both"))
    perform(_archive(run_ids or [], older_than, dry_run=dry_run, json_lines=json_lines))


@app.command("erase")
def erase_run(
    run_id: Annotated[str, typer.Argument(help="Id of the run; it must have ended.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept for good.")],
    events: Annotated[str, typer.Option(help="Only what these events say, as in 3,7,10-12.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="What every event says.")] = False,  # noqa: FBT002
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Remove what a run's events say and all that was made from it, for good. Its chain still verifies.

    `skyagent audit erasures` lists what was erased, by whom and why. Exit code 1 for a run that has not ended.
    """
    if everything == bool(events):
        raise InvalidArgument(Violation("", "say --events or --all, and not both"))
    perform(_erase(run_id, seqs_of(events), reason, json_lines=json_lines))


async def _archive(run_ids: list[str], older_than: str, *, dry_run: bool, json_lines: bool) -> None:
    as_json, rows = machine_readable(json_lines=json_lines), list[tuple[str, ...]]()
    async with connected(load_settings()) as services:
        if older_than:
            before_ms = SystemClock().now_ms() - seconds_of(older_than) * 1000
            run_ids = [run_id async for run_id in ended_before(services, before_ms)]
        for run_id in run_ids:
            moved = await archived(services, run_id, dry_run=dry_run)
            rows.append(moved.row())
            if as_json:
                print_json(moved.json())
    if not as_json:
        print_list([], ARCHIVED, rows, json_lines=False)


async def _erase(run_id: str, seqs: list[int], reason: str, *, json_lines: bool) -> None:
    asked = api.EraseRunRequest(run_id=run_id, seqs=seqs, all=not seqs, reason=reason)
    async with connected(load_settings()) as services:
        erasure = (await services.runs.EraseRun(asked, timeout=ERASE_SECONDS)).erasure
    print_list([erasure], ERASURES, [erasure_row(erasure)], json_lines=json_lines)


async def _list(request: api.ListRunsRequest, *, json_lines: bool) -> None:
    async with connected(load_settings()) as services:
        runs = (await services.runs.ListRuns(request)).runs
    print_list(runs, COLUMNS, [_row(run) for run in runs], json_lines=json_lines)


def _row(run: api.RunSummary) -> tuple[str | Text, ...]:
    waiting = Text(str(run.waiting_for_person or ""), "yellow")
    goal = run.goal.split("\n")[0][:GOAL_WIDTH]
    doing = run.blocked_reason or run.current_step or run.summary
    return (
        run.run_id,
        phase(ev.RunPhase.Name(run.phase)),
        goal,
        doing,
        when(run.create_time),
        str(run.counts.attempts),
        waiting,
    )


async def _get(given: str, *, json_lines: bool) -> Exit:
    async with connected(load_settings()) as services:
        answer = await services.runs.GetRun(api.GetRunRequest(run_id=await run_of(services, given)))
    if machine_readable(json_lines=json_lines):
        print_message(answer)
    else:
        console.print(run_view(RunFold(answer.run)))
    code = exit_of_run(answer.run)
    return Exit.SUCCEEDED if code is None else code


async def _watch(given: str, *, json_lines: bool) -> Exit:
    clock = SystemClock()
    answers = Answers.PERSON if somebody_is_there() and not json_lines else Answers.NOBODY
    async with connected(load_settings()) as services:
        run_id = await run_of(services, given)
        return await Watch(services, run_id, clock, system_ids(clock), answers).to_the_end(json_lines=json_lines)


async def _fork(given: str, asked: api.ForkRunRequest, *, json_lines: bool) -> None:
    asked.request_id = asked.request_id or system_ids(SystemClock()).uuid()
    async with connected(load_settings()) as services:
        asked.run_id = await run_of(services, given)
        forked = await services.runs.ForkRun(asked)
    if machine_readable(json_lines=json_lines):
        print_message(forked)
        return
    print_list([forked.run], COLUMNS, [_row(forked.run)], json_lines=False)
    for note in forked.notes:
        console.print(plain(note, "dim"))


async def _control(given: str, command: Callable[[Services, str, str], Awaitable[api.RunSummary]]) -> None:
    request_id = system_ids(SystemClock()).uuid()
    async with connected(load_settings()) as services:
        run = await command(services, await run_of(services, given), request_id)
    print_list([run], COLUMNS, [_row(run)], json_lines=False)


async def run_of(services: Services, given: str) -> str:
    """The run that an id means: itself, or the latest of a mission. Precondition for one that never ran."""
    try:
        found = await services.missions.GetMission(missions.GetMissionRequest(mission_id=given))
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT):
            return given
        raise
    if not found.mission.current_run_id:
        raise Precondition("NEVER_RAN", f"mission {given} has no run yet; `skyagent missions start {given}` starts one")
    return found.mission.current_run_id
