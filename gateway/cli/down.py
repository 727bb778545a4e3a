"""`skyagent down`."""

from __future__ import annotations

import os
import signal

import typer

from gateway.cli.session import perform
from gateway.supervisor.leftovers import end_leftovers
from gateway.supervisor.lock import holder
from infra.clock import Clock, SystemClock
from infra.errors import Unavailable
from infra.processes import alive, end_group
from infra.settings import Settings, load_settings

app = typer.Typer(add_completion=False)

SECONDS = 30.0
POLL = 0.05


@app.command()
def run() -> None:
    """End the mesh of this data directory; what is in hand is finished first."""
    clock = SystemClock()
    typer.echo(perform(end(load_settings(), clock)))


async def end(settings: Settings, clock: Clock) -> str:
    """Ends it, and whatever a killed one left; says what there was."""
    supervisor = holder(settings.up_lock_path)
    if supervisor is None:
        left = await end_leftovers(settings, clock)
        return f"nothing was running; ended {len(left)} leftover processes" if left else "nothing was running"
    os.kill(supervisor.pid, signal.SIGTERM)
    until = clock.monotonic() + SECONDS
    while alive(supervisor) and clock.monotonic() < until:
        await clock.sleep(POLL)
    if not alive(supervisor):
        return f"ended (it was process {supervisor.pid})"
    await end_group(supervisor, clock, 0.0)
    await end_leftovers(settings, clock)
    raise Unavailable("DOWN_BY_FORCE", f"process {supervisor.pid} did not end within {SECONDS:.0f} s and was killed")
