"""`skyagent policy`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from google.protobuf import json_format

from gateway.cli.exits import Exit
from gateway.cli.output import console, machine_readable, print_message
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import connected
from infra.errors import InvalidArgument, Violation
from infra.settings import load_settings
from skyagent.policy.v1 import decision_pb2
from skyagent.policy.v1 import policy_service_pb2 as api

EXITS = {decision_pb2.VERDICT_ALLOW: Exit.SUCCEEDED, decision_pb2.VERDICT_ASK: Exit.WAITS_FOR_PERSON}

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Ask what policy says of an action.")


@app.command("check")
def check(
    request: Annotated[Path, typer.Argument(help="CheckRequest as JSON, as `POST /v1/policy:check` takes it.")],
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Judge an action. Exit codes: 0 it is allowed, 3 a person would be asked, 4 it is denied."""
    decision = perform(_check(_read(request)))
    if machine_readable(json_lines=json_lines):
        print_message(decision)
    else:
        verdict = decision_pb2.Verdict.Name(decision.verdict).removeprefix("VERDICT_")
        console.print(
            f"[bold]{verdict}[/bold]  by {', '.join(decision.policy_ids) or 'default'}  {decision.bundle_digest}"
        )
        for reason in (*decision.reasons, *decision.errors):
            console.print(f"  {reason}", markup=False)
    raise typer.Exit(EXITS.get(decision.verdict, Exit.DENIED))


@app.command("show")
def show() -> None:
    """Print the bundle in force."""

    async def work() -> api.Bundle:
        async with connected(load_settings()) as services:
            return (await services.policy.GetBundle(api.GetBundleRequest())).bundle

    bundle = perform(work())
    typer.echo(f"// {bundle.digest}\n{bundle.policies}")


async def _check(request: api.CheckRequest) -> decision_pb2.Decision:
    async with connected(load_settings()) as services:
        return (await services.policy.Check(request)).decision


def _read(path: Path) -> api.CheckRequest:
    try:
        return json_format.Parse(path.read_text(), api.CheckRequest())
    except (OSError, json_format.ParseError, UnicodeDecodeError) as bad:
        raise InvalidArgument(Violation("REQUEST", f"{path}: {bad}"), reason="BAD_REQUEST_FILE") from bad
