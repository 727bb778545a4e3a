"""`skyagent budgets`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer
from rich.text import Text

from control.core.budget import figure
from gateway.cli.amounts import parsed
from gateway.cli.output import console, machine_readable, phase, print_list, print_message, when
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import connected
from infra.settings import load_settings
from skyagent.budget.v1 import budget_service_pb2 as api
from skyagent.run.v1 import event_pb2 as ev

COLUMNS = ("whose", "of", "limit", "left", "held", "spent", "set", "by")
ALLOTMENTS = ("run", "phase", "granted", "reserved", "spent", "returned")


class Kind(StrEnum):
    """What a budget is of."""

    MONEY = "money"
    TOKENS = "tokens"
    STEPS = "steps"
    WALL_TIME = "wall_time"


Of = Annotated[Kind, typer.Argument(help="What the budget is of.")]
Mission = Annotated[str, typer.Option(help="The mission; without one the tenant's own budget.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List, show and set what runs may use.")


@app.command("ls")
def list_budgets(
    mission: Annotated[str, typer.Option(help="Only of this mission.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 50,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List budgets: the tenant's own, then those of missions, newest first."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            asked = api.ListBudgetsRequest(mission_id=mission, page_size=limit)
            found = (await services.budgets.ListBudgets(asked)).budgets
        print_list(found, COLUMNS, [budget_row(budget) for budget in found], json_lines=json_lines)

    perform(work())


@app.command("get")
def get_budget(kind: Of, mission: Mission = "", json_lines: Json = False) -> None:  # noqa: FBT002
    """Show a budget, and what each run was granted of it."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            asked = api.GetBudgetRequest(kind=kind.value, mission_id=mission)
            budget = (await services.budgets.GetBudget(asked)).budget
        if machine_readable(json_lines=json_lines):
            print_message(budget)
            return
        print_list([budget], COLUMNS, [budget_row(budget)], json_lines=False)
        if budget.allotments:
            console.print()
            rows = [_allotment(kind.value, each) for each in budget.allotments]
            print_list(budget.allotments, ALLOTMENTS, rows, json_lines=False)

    perform(work())


@app.command("set")
def set_budget(
    kind: Of,
    limit: Annotated[str, typer.Argument(help="What all runs together may use: 500, 12.50, 8h; 0 for nothing.")],
    mission: Mission = "",
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Set the limit of a budget, which binds the runs that start from then on; for administrators.

    A limit below what runs hold or have used is refused.
    """
    units = 0 if limit.strip() == "0" else parsed(kind.value, limit, "LIMIT")

    async def work() -> None:
        async with connected(load_settings()) as services:
            asked = api.SetBudgetRequest(kind=kind.value, mission_id=mission, limit=units)
            budget = (await services.budgets.SetBudget(asked)).budget
        print_list([budget], COLUMNS, [budget_row(budget)], json_lines=json_lines)

    perform(work())


def budget_row(budget: api.Budget) -> tuple[str, ...]:
    """A budget as a line of a table with the columns COLUMNS."""
    left = budget.limit - budget.allotted - budget.spent
    return (
        budget.mission_id or "tenant",
        budget.kind,
        *(figure(budget.kind, units) for units in (budget.limit, left, budget.allotted, budget.spent)),
        when(budget.update_time),
        budget.actor,
    )


def _allotment(kind: str, each: api.Allotment) -> tuple[str | Text, ...]:
    returned = figure(kind, each.returned) if each.settled else ""
    shown = (figure(kind, units) for units in (each.granted, each.reserved, each.spent))
    return (each.run_id, phase(ev.RunPhase.Name(each.phase)), *shown, returned)
