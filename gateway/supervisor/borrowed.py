"""A mesh for one command: the one that runs, or one of its own that ends with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from gateway.supervisor.board import STATUS_FILE, read_mesh
from gateway.supervisor.keeper import tail
from gateway.supervisor.live import running
from gateway.supervisor.lock import holder
from gateway.supervisor.programs import child_environment, skyagent
from gateway.supervisor.readiness import answers
from infra.clock import Clock
from infra.disk import explained
from infra.errors import Precondition, Unavailable
from infra.processes import Child, alive, spawn
from infra.settings import Settings

POLL = 0.05
START_SECONDS = 60.0
STOP_GRACE = 15.0


@asynccontextmanager
async def some_mesh(settings: Settings, clock: Clock) -> AsyncGenerator[None]:
    """A gateway that answers, for the block."""
    if await answers(settings.gateway.host, settings.gateway.port):
        yield
    elif holder(settings.up_lock_path):
        await _until_ready(settings, None, clock)
        yield
    else:
        log = settings.run_dir / "up.log"
        with explained(log):
            settings.run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            log.write_bytes(b"\n")  # where nothing can be written, nobody could say why there is no mesh
            child = await spawn(skyagent("up"), clock, env=child_environment(settings), log_path=log)
        try:
            await _until_ready(settings, child, clock)
            yield
        finally:
            await child.stop(STOP_GRACE)


async def _until_ready(settings: Settings, child: Child | None, clock: Clock) -> None:
    until = clock.monotonic() + START_SECONDS
    while clock.monotonic() < until:
        mesh = read_mesh(settings.run_dir / STATUS_FILE)
        current = running(settings) if child is None else mesh
        if current and current.ready and (child is None or current.pid == child.pid):
            return
        if child and not alive(child.identity):
            said = tail(settings.run_dir / "up.log").removeprefix("skyagent: ")
            raise Precondition("UP_FAILED", f"the mesh could not be started: {said}")
        await clock.sleep(POLL)
    raise Unavailable("NOT_READY", f"the mesh was not ready within {START_SECONDS:.0f} s; `skyagent status` tells why")
