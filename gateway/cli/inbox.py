"""`skyagent inbox`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from gateway.cli.exits import Exit
from gateway.cli.output import console, machine_readable, plain, print_message, when
from gateway.cli.runs import GOAL_WIDTH, Json
from gateway.cli.session import perform
from gateway.client import connected
from infra.settings import load_settings
from skyagent.run.v1 import run_service_pb2 as api

_TITLES = {
    api.INBOX_KIND_APPROVAL: "may it?",
    api.INBOX_KIND_UNCERTAIN_STEP: "did it happen?",
    api.INBOX_KIND_WORKER_AWAY: "its worker is away",
    api.INBOX_KIND_LOG_BEHIND: "its journal is behind",
    api.INBOX_KIND_BUDGET_EXHAUSTED: "out of budget",
}
_PAGE = 200

app = typer.Typer(add_completion=False)


@app.command()
def inbox(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 200,
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List all that waits for a person, over all runs, with what is known and the commands that answer it.

    Exit codes: 0 nothing waits, 3 something does, 69 unavailable.
    """
    waiting = perform(_items(limit))
    if machine_readable(json_lines=json_lines):
        for item in waiting:
            print_message(item)
    else:
        for item in waiting:
            _show(item)
        if not waiting:
            console.print("[dim]nothing waits for you[/dim]")
    raise typer.Exit(Exit.WAITS_FOR_PERSON if waiting else Exit.SUCCEEDED)


async def _items(limit: int) -> list[api.InboxItem]:
    found, token = list[api.InboxItem](), ""
    async with connected(load_settings()) as services:
        while len(found) < limit:
            page = await services.runs.ListInbox(api.ListInboxRequest(page_size=_PAGE, page_token=token))
            found += page.items
            token = page.next_page_token
            if not token:
                break
    return found[:limit]


def _show(item: api.InboxItem) -> None:
    goal = item.goal.split("\n")[0][:GOAL_WIDTH]
    head = Text.assemble((_TITLES.get(item.kind, "?"), "bold yellow"), "  ", plain(item.title, "bold"))
    console.print(head.append(f"  since {when(item.since)}", "dim"))
    console.print(plain(f"  run     {item.run_id}  {goal}", "dim"))
    if item.known:
        console.print(plain(f"  known   {item.known}"))
    if item.expire_time.seconds:
        console.print(plain(f"  closes  {when(item.expire_time)}", "dim"))
    for answer in item.answers:
        console.print(plain(f"  $ {answer}", "cyan"))
