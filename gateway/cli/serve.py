"""`skyagent serve`."""

from __future__ import annotations

from typing import Annotated

import typer
import uvloop

from control.services import ALL
from gateway.cli.session import perform
from infra.errors import InvalidArgument, Violation
from infra.log import configure_logging
from infra.mesh import Service, serve
from infra.settings import load_settings

app = typer.Typer(add_completion=False)


@app.command()
def run(names: Annotated[list[str], typer.Argument(help="Services of the control plane, or `all`.")]) -> None:
    """Run services of the control plane in this process, until SIGTERM."""
    settings = load_settings()
    configure_logging(settings.log)
    perform(serve(_chosen(names), settings), new_loop=uvloop.new_event_loop)


def _chosen(names: list[str]) -> tuple[Service, ...]:
    unknown = [name for name in names if name not in ALL and name != "all"]
    if unknown:
        raise InvalidArgument(
            Violation("NAME", f"{unknown[0]!r} is no service; choose from: all, {', '.join(ALL)}"),
            reason="UNKNOWN_SERVICE",
        )
    return tuple(ALL.values()) if "all" in names else tuple(ALL[name] for name in names)
