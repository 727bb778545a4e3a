"""`skyagent templates`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.output import console, machine_readable, print_list, print_message
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import connected
from infra.errors import InvalidArgument, Violation
from infra.settings import load_settings
from skyagent.mission.v1 import mission_service_pb2 as api
from skyagent.mission.v1 import template_pb2

COLUMNS = ("template", "runtime", "what it does")

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Show missions that need no model.")


@app.command("ls")
def list_templates(json_lines: Json = False) -> None:  # noqa: FBT002
    """List the templates that are installed."""
    found = perform(_templates())
    rows = [(template.name, template.runtime, template.summary) for template in found]
    print_list(found, COLUMNS, rows, json_lines=json_lines)


@app.command("show")
def show_template(
    name: Annotated[str, typer.Argument(help="Name of the template.")],
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """Show what a template needs and does."""
    found = {template.name: template for template in perform(_templates())}
    if name not in found:
        raise InvalidArgument(
            Violation("NAME", f"there is no template {name!r}; choose from {', '.join(found)}"),
            reason="UNKNOWN_TEMPLATE",
        )
    if machine_readable(json_lines=json_lines):
        print_message(found[name])
    else:
        _print(found[name])


async def _templates() -> list[template_pb2.Template]:
    async with connected(load_settings()) as services:
        return list((await services.missions.ListTemplates(api.ListTemplatesRequest())).templates)


def _print(template: template_pb2.Template) -> None:
    console.print(f"[bold]{template.name}[/bold] {template.version}  {template.summary}")
    for item in template.inputs:
        kind = template_pb2.InputType.Name(item.type).removeprefix("INPUT_TYPE_").lower()
        default = f", {item.default_value!r} by default" if item.default_value else ""
        need = "needed" if item.required else "optional"
        console.print(f"  {item.name:<16}{kind:<8}{need:<9}{item.description}{default}", markup=False)
    console.print(f"  phases: {' → '.join(template.phases)}", markup=False)
    console.print(f"  {template.example}", markup=False)
