"""`skyagent doctor`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import chain
from typing import Annotated

import typer

from gateway.cli.exits import Exit
from gateway.cli.output import console, machine_readable, plain, print_json
from gateway.cli.session import perform
from gateway.doctor import Health, examine
from gateway.facts import facts
from infra.settings import load_settings

app = typer.Typer(add_completion=False)

COLOURS = {Health.WELL: "green", Health.WARNING: "yellow", Health.ILL: "red"}


@app.command()
def run(
    json_lines: Annotated[bool, typer.Option("--json", help="JSON lines even on a terminal.")] = False,  # noqa: FBT002
) -> None:
    """Check this machine and the mesh or journal on it. Exit code 1 when something is missing or does not work."""
    ill = False
    settings = load_settings()
    for finding in chain(examine(settings), perform(facts(settings))):
        ill = ill or finding.health is Health.ILL
        if machine_readable(json_lines=json_lines):
            print_json(asdict(finding))
            continue
        colour = COLOURS[finding.health]
        console.print(
            plain(f"{finding.health.value:<5}", colour).append(f"{finding.subject:<17}{finding.detail}", "default")
        )
        if finding.fix:
            console.print(plain(f"     fix: {finding.fix}", "dim"))
    if ill:
        raise typer.Exit(Exit.FAILED)
