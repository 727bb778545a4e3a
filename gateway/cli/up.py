"""`skyagent up`."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from gateway.cli.dashboard import dashboard_address
from gateway.cli.exits import Exit
from gateway.cli.session import perform
from gateway.supervisor.board import STATUS_FILE, Board, Part, State, read_mesh
from gateway.supervisor.keeper import tail
from gateway.supervisor.lock import holder
from gateway.supervisor.mesh import running_mesh, told_to_stop
from gateway.supervisor.programs import child_environment, programs_of, skyagent
from infra.clock import Clock, SystemClock
from infra.disk import explained
from infra.errors import Precondition
from infra.ids import system_ids
from infra.log import configure_logging
from infra.settings import Settings, load_settings

app = typer.Typer(add_completion=False)
console = Console(highlight=False, soft_wrap=True)

COLOURS = {State.READY: "green", State.RESTARTING: "yellow", State.LOOPING: "red"}
POLL = 0.05


@app.command()
def run(
    detach: Annotated[bool, typer.Option("--detach", help="Return once the mesh is ready.")] = False,  # noqa: FBT002
) -> None:
    """Run the mesh: control plane, gateway and workers, each started again when it dies."""
    settings = load_settings()
    configure_logging(settings.log)
    work = detached(settings, SystemClock()) if detach else foreground(settings, SystemClock())
    raise typer.Exit(perform(work))


async def foreground(settings: Settings, clock: Clock) -> Exit:
    """Until SIGTERM (exit code 0) or SIGINT (130)."""
    began = clock.monotonic()
    with told_to_stop() as told:
        async with running_mesh(settings, programs_of(settings, clock), clock=clock, ids=system_ids(clock)) as board:
            board.on_change(_tell)
            async with asyncio.TaskGroup() as group:
                welcoming = group.create_task(_welcome(board, settings, began, clock))
                received = await told
                welcoming.cancel()
            console.print("[dim]ending: finishing what is in hand[/dim]")
    return Exit.INTERRUPTED if received is signal.SIGINT else Exit.SUCCEEDED


async def detached(settings: Settings, clock: Clock) -> Exit:
    """Starts the mesh as a process of its own, and returns once it is ready."""
    log = settings.run_dir / "up.log"
    with explained(log):
        settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        output = log.open("wb", buffering=0)
        output.write(b"\n")  # where nothing can be written, nobody could say why there is no mesh
    with output:
        process = subprocess.Popen(  # noqa: ASYNC220 - it must outlive this event loop
            skyagent("up"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(child_environment(settings)),
            start_new_session=True,
        )
    while process.poll() is None:
        mesh = read_mesh(settings.run_dir / STATUS_FILE)
        if mesh and mesh.ready and mesh.pid == process.pid:
            console.print(f"[green]ready[/green]  {mesh.address}  pid {mesh.pid}; `skyagent down` ends it")
            return Exit.SUCCEEDED
        await clock.sleep(POLL)
    if holder(settings.up_lock_path):
        raise Precondition("ALREADY_UP", tail(log).removeprefix("skyagent: "))
    raise Precondition("UP_FAILED", tail(log).removeprefix("skyagent: "))


def _tell(part: Part) -> None:
    if part.state in (State.STARTING, State.STOPPED):
        return
    colour = COLOURS[part.state]
    port = f"  port {part.port}" if part.port and part.state is State.READY else ""
    again = f"  start {part.restarts + 1}" if part.restarts else ""
    pid = f"  pid {part.pid}" if part.pid else ""
    detail = f"  {escape(part.detail)}" if part.detail else ""
    console.print(f"[{colour}]{part.state.value:<10}[/{colour}] {part.name}{pid}{port}{again}{detail}")


async def _welcome(board: Board, settings: Settings, began: float, clock: Clock) -> None:
    await board.until_ready()
    seconds = clock.monotonic() - began
    console.print(f"[bold]{board.mesh.address}[/bold]  ready in {seconds:.1f} s; Ctrl-C ends it")
    if console.is_terminal:  # a log should not hold the key
        console.print(f"dashboard  {dashboard_address(settings)}")
