"""`skyagent status`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.exits import Exit
from gateway.cli.output import machine_readable, print_json
from gateway.supervisor.board import Mesh, Part, State, read_mesh
from gateway.supervisor.lock import holder
from gateway.supervisor.mesh import STATUS_FILE
from gateway.supervisor.programs import inventory_path
from infra.clock import SystemClock
from infra.processes import process_id
from infra.settings import Settings, load_settings

app = typer.Typer(add_completion=False)
console = Console(highlight=False)


@dataclass(frozen=True, slots=True)
class Owned:
    """A process that a worker owns, for instance its browser."""

    name: str
    pid: int
    worker: str


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


def running(settings: Settings) -> Mesh | None:
    """The mesh that runs now; None when its supervisor does not. A part that just died is not called ready."""
    supervisor = holder(settings.up_lock_path)
    mesh = read_mesh(settings.run_dir / STATUS_FILE)
    if supervisor is None or mesh is None or mesh.pid != supervisor.pid:
        return None
    parts = tuple(_as_it_is(part) for part in mesh.parts)
    return replace(mesh, parts=parts, ready=mesh.ready and all(part.state is State.READY for part in parts))


def owned_processes(settings: Settings, mesh: Mesh) -> Iterator[Owned]:
    """What the workers own, as their inventories say, if it is still alive."""
    for part in mesh.parts:
        for process in _inventory(inventory_path(settings, part.name)):
            if process_id(process.pid):
                yield replace(process, worker=part.name)


def _inventory(path: Path) -> list[Owned]:
    try:
        found = json.loads(path.read_text()).get("processes", [])
        return [Owned(str(each["name"]), int(each["pid"]), "") for each in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _as_it_is(part: Part) -> Part:
    if part.state is State.READY and process_id(part.pid) is None:
        return replace(part, state=State.RESTARTING, pid=0)
    return part


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
