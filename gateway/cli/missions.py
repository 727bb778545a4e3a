"""`skyagent missions`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.amounts import Money, Steps, Tokens, WallTime, some
from gateway.cli.budgets import COLUMNS as BUDGET_COLUMNS
from gateway.cli.budgets import budget_row
from gateway.cli.output import print_list, print_message, when
from gateway.cli.runs import GOAL_WIDTH, Json, cancel_run, pause_run, resume_run, watch_run
from gateway.cli.session import perform
from gateway.client import connected
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import load_settings
from skyagent.budget.v1 import budget_service_pb2 as budgets
from skyagent.mission.v1 import mission_pb2
from skyagent.mission.v1 import mission_service_pb2 as api
from skyagent.run.v1 import run_service_pb2 as runs

COLUMNS = ("mission", "goal", "template", "created", "by", "runs", "latest run")
Id = Annotated[str, typer.Argument(help="Id of the mission.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show, watch and control missions.")
app.command("watch")(watch_run)
app.command("pause")(pause_run)
app.command("resume")(resume_run)
app.command("cancel")(cancel_run)


@app.command("ls")
def list_missions(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List missions, newest first."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            found = (await services.missions.ListMissions(api.ListMissionsRequest(page_size=limit))).missions
        print_list(found, COLUMNS, [_row(mission) for mission in found], json_lines=json_lines)

    perform(work())


@app.command("get")
def get_mission(mission_id: Id) -> None:
    """Show a mission."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            print_message(await services.missions.GetMission(api.GetMissionRequest(mission_id=mission_id)))

    perform(work())


@app.command("start")
def start_run(mission_id: Id) -> None:
    """Start another run of a mission."""

    async def work() -> None:
        request = runs.StartRunRequest(mission_id=mission_id, request_id=system_ids(SystemClock()).uuid())
        async with connected(load_settings()) as services:
            print_message(await services.runs.StartRun(request))

    perform(work())


@app.command("topup")
def top_up(mission_id: Id, steps: Steps = "", money: Money = "", tokens: Tokens = "", wall_time: WallTime = "") -> None:
    """Raise the budgets of a mission; its runs that wait for more go on by themselves."""
    amounts = some(steps=steps, money=money, tokens=tokens, wall_time=wall_time)

    async def work() -> None:
        ids = system_ids(SystemClock())
        asked = [
            budgets.TopUpMissionRequest(mission_id=mission_id, kind=kind, amount=units, request_id=ids.uuid())
            for kind, units in amounts.items()
        ]
        async with connected(load_settings()) as services:
            raised = [(await services.budgets.TopUpMission(each)).budget for each in asked]
        print_list(raised, BUDGET_COLUMNS, [budget_row(budget) for budget in raised], json_lines=False)

    perform(work())


def _row(mission: mission_pb2.Mission) -> tuple[str, ...]:
    return (
        mission.mission_id,
        mission.spec.goal.split("\n")[0][:GOAL_WIDTH],
        mission.spec.template or "-",
        when(mission.create_time),
        mission.creator,
        str(mission.run_count),
        mission.current_run_id or "-",
    )
