"""`skyagent run`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from gateway.cli.amounts import given as limited
from gateway.cli.asking import somebody_is_there
from gateway.cli.exits import Exit
from gateway.cli.mission import Wish, named_values, spec_of, split_inputs
from gateway.cli.output import console, machine_readable, print_json
from gateway.cli.session import perform
from gateway.cli.watch import Answers, Watch
from gateway.client import connected
from gateway.supervisor.borrowed import some_mesh
from gateway.watching import patiently
from infra.clock import Clock, SystemClock
from infra.errors import InvalidArgument, Violation
from infra.ids import system_ids
from infra.settings import Settings, load_settings
from skyagent.mission.v1 import mission_service_pb2 as api

app = typer.Typer(add_completion=False)


class Runtime(StrEnum):
    """Where a mission acts."""

    AUTO = "auto"
    BROWSER = "browser"
    DESKTOP = "desktop"
    WORKSPACE = "workspace"


@app.command()
def run(  # noqa: PLR0913, PLR0917 - these are the options
    template: Annotated[str, typer.Option(help="Template to follow; `skyagent templates ls` lists them.")] = "",
    given: Annotated[list[str], typer.Option("--input", help="FILE, INPUT=FILE or INPUT=VALUE.")] = [],  # noqa: B006
    goal: Annotated[str, typer.Option(help="What should be true afterwards, in your own words.")] = "",
    site: Annotated[str, typer.Option(help="Address of the application: the input `site`.")] = "",
    values: Annotated[
        list[str], typer.Option("--set", help="INPUT=VALUE of the template; may hold {{secret:name}}.")
    ] = [],  # noqa: B006
    runtime: Annotated[Runtime, typer.Option(help="Where to act.")] = Runtime.AUTO,
    allow_host: Annotated[
        list[str], typer.Option(help="Host (:PORT unless 80 or 443) to be reached besides the site's.")
    ] = [],  # noqa: B006
    approve_above: Annotated[str, typer.Option(help="Ask a person before an amount above this is submitted.")] = "",
    steps: Annotated[str, typer.Option(help="Steps that the mission may take.")] = "",
    money: Annotated[str, typer.Option(help="US dollars that it may cost, such as 5 or 0.25.")] = "",
    tokens: Annotated[str, typer.Option(help="Model tokens that it may use.")] = "",
    wall_time: Annotated[str, typer.Option(help="Time that it may take, such as 90s, 10m or 1h30m.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and judge every step, touch nothing.")] = False,  # noqa: FBT002
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Follow the run to its end.")] = True,  # noqa: FBT002
    json_lines: Annotated[bool, typer.Option("--json", help="JSON lines even on a terminal.")] = False,  # noqa: FBT002
    yes: Annotated[bool, typer.Option("--yes", help="Answer every question of this run with yes.")] = False,  # noqa: FBT002
) -> None:
    """Run a mission. Without a running mesh it starts one for itself and ends it afterwards.

    Exit codes: 0 succeeded, 1 failed, 2 usage, 3 waits for a person, 4 denied, 5 budget or deadline, 69 unavailable,
    130 interrupted.
    """
    settings = load_settings()
    if not template and not goal.strip():
        raise InvalidArgument(Violation("--goal", "say what to do, or name a --template"), reason="NOTHING_ASKED")
    files, inputs = split_inputs(given)
    inputs |= {**({"site": site} if site else {}), **named_values("--set", values)}
    wish = Wish(
        template, goal.strip(), files, inputs, runtime.value, tuple(allow_host), approve_above,
        dry_run or settings.dry_run, limited(steps=steps, money=money, tokens=tokens, wall_time=wall_time),
    )  # fmt: skip
    as_json = machine_readable(json_lines=json_lines)
    answers = Answers.YES if yes else Answers.PERSON if somebody_is_there() and not as_json else Answers.NOBODY
    raise typer.Exit(perform(_run(settings, wish, answers if watch else None, SystemClock(), as_json=as_json)))


async def _run(settings: Settings, wish: Wish, answers: Answers | None, clock: Clock, *, as_json: bool) -> Exit:
    ids = system_ids(clock)
    async with some_mesh(settings, clock), connected(settings) as services:
        request = api.CreateMissionRequest(spec=await spec_of(wish, services), request_id=ids.uuid())
        created = await patiently(lambda: services.missions.CreateMission(request), clock)
        if answers is None:
            if as_json:
                print_json({"missionId": created.mission.mission_id, "runId": created.run_id})
            else:
                console.print(f"started {created.run_id}; `skyagent runs watch {created.run_id}` follows it")
            return Exit.SUCCEEDED
        return await Watch(services, created.run_id, clock, ids, answers).to_the_end(json_lines=as_json)
