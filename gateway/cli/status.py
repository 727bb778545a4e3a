"""`skyagent status`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.exits import Exit
from gateway.cli.output import machine_readable, print_json
from gateway.supervisor.board import Mesh
from gateway.supervisor.live import Owned, owned_processes, running
from infra.clock import SystemClock
from infra.settings import Settings, load_settings

app = typer.Typer(add_completion=False)
console = Console(highlight=False)


@app.command()
def show(
    json_lines: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,  # noqa: FBT002
) -> None:
    """Show the mesh and its processes. Exit code 69 when none is running, 1 when it is not ready."""
    settings = load_settings()
    mesh = running(settings)
    owned = tuple(owned_processes(settings, mesh)) if mesh else ()
    if machine_readable(json_lines=json_lines):
        print_json(_object(settings, mesh, owned))
    elif mesh:
        _print(mesh, owned)
    else:
        console.print("no mesh is running here; `skyagent up` starts one")
    if mesh is None:
        raise typer.Exit(Exit.UNAVAILABLE)
    if not mesh.ready:
        raise typer.Exit(Exit.FAILED)


def _object(settings: Settings, mesh: Mesh | None, owned: tuple[Owned, ...]) -> dict[str, object]:
    if mesh is None:
        return {"running": False, "ready": False, "data_dir": str(settings.data_dir)}
    return {
        "running": True,
        "data_dir": str(settings.data_dir),
        **asdict(mesh),
        "owned": [asdict(process) for process in owned],
    }


def _print(mesh: Mesh, owned: tuple[Owned, ...]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("process", "state", "pid", "port", "restarts", "for"):
        table.add_column(column)
    now = SystemClock().now_ms()
    for part in mesh.parts:
        port = str(part.port or "")
        age = f"{(now - part.since_ms) // 1000} s"
        table.add_row(part.name, part.state.value, str(part.pid or "-"), port, str(part.restarts), age)
        for process in owned:
            if process.worker == part.name:
                table.add_row(f"  {process.name}", "", str(process.pid), "", "", "")
    console.print(f"[bold]{mesh.address}[/bold]  supervisor pid {mesh.pid}  {'ready' if mesh.ready else 'not ready'}")
    console.print(table)
