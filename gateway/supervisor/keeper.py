"""Keeps one program alive."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.supervisor.board import Board, State
from gateway.supervisor.restarts import delay, looping, recent
from infra.clock import Clock
from infra.disk import os_failure
from infra.errors import Precondition
from infra.log import event_logger
from infra.processes import Child, ProcessId, spawn, write_pidfile

TAIL_BYTES = 4096
QUOTED_LINES = 3
# A log grows by what goes wrong; one old file is kept.
MAX_LOG_BYTES = 8 * 1024 * 1024

event_log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `ready` returns once the process with that pid does its work; `grace` is in seconds."""

    name: str
    argv: tuple[str, ...]
    ready: Callable[[int], Awaitable[None]]
    port: int | None = None
    grace: float = 5.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every program of one mesh shares."""

    run_dir: Path
    environment: Mapping[str, str]
    marker: str

    def prepare(self) -> None:
        """Makes the folders, open only to their owner."""
        for folder in ("log", "pids"):
            (self.run_dir / folder).mkdir(mode=0o700, parents=True, exist_ok=True)

    def log(self, name: str) -> Path:
        """Where a program writes."""
        return self.run_dir / "log" / f"{name}.log"

    def pidfile(self, name: str) -> Path:
        """By which the next `up` finds it."""
        return self.run_dir / "pids" / f"{name}.pid"

    def note(self, name: str, process: ProcessId) -> None:
        """Writes the pidfile, if there is room: the next `up` finds the process by its marker, too."""
        path = self.pidfile(name)
        try:
            write_pidfile(path, process)
        except OSError as error:
            event_log.debug("pidfile.not_written", error=os_failure(error, path))


class Keeper:
    """Starts a program, and again whenever it dies, until stop()."""

    def __init__(self, program: Program, surroundings: Surroundings, board: Board, clock: Clock) -> None:
        self._program = program
        self._around = surroundings
        self._board = board
        self._clock = clock
        self._child: Child | None = None
        self._stopping = asyncio.Event()
        self._deaths: tuple[float, ...] = ()
        self._was_ready = False

    async def keep(self) -> None:
        """Until stop(). Raises Precondition when the program ends by itself without ever having been ready."""
        name, restarts = self._program.name, 0
        try:
            while not self._stopping.is_set():
                code = await self._live_once(restarts)
                if not self._stopping.is_set():
                    await self._after(code, restarts)
                    restarts += 1
        finally:
            if self._child:
                await self._child.stop(self._program.grace)
            self._around.pidfile(name).unlink(missing_ok=True)
            self._board.put(name, State.STOPPED)

    async def stop(self) -> None:
        """Ends the program: SIGTERM, its grace, SIGKILL."""
        self._stopping.set()
        if self._child:
            await self._child.stop(self._program.grace)

    async def _live_once(self, restarts: int) -> int:
        log = self._around.log(self._program.name)
        _rotate(log)
        self._child = child = await spawn(
            self._program.argv, self._clock, env=self._around.environment, log_path=log, marker=self._around.marker
        )
        self._around.note(self._program.name, child.identity)
        self._board.put(self._program.name, State.STARTING, pid=child.pid, restarts=restarts)
        async with asyncio.TaskGroup() as group:
            announcing = group.create_task(self._announce(child.pid))
            code = await child.wait()
            announcing.cancel()
        self._child = None
        return code

    async def _announce(self, pid: int) -> None:
        await self._program.ready(pid)
        self._was_ready = True
        self._board.put(self._program.name, State.READY, pid=pid)

    async def _after(self, code: int, restarts: int) -> None:
        """Decides what a death means, and waits as long as that asks for."""
        name, now = self._program.name, self._clock.monotonic()
        last_words = tail(self._around.log(name))
        if not self._was_ready and code >= 0:
            raise Precondition(
                "CHILD_FAILED",
                f"{name} ended with exit code {code} before it was ready:\n{last_words}\n"
                f"the whole log is {self._around.log(name)}; `skyagent doctor` checks the machine",
                name=name,
            )
        self._deaths = (*recent(self._deaths, now), now)
        state = State.LOOPING if looping(self._deaths, now) else State.RESTARTING
        quoted = f", last words: {last_words}" if state is State.LOOPING else ""
        self._board.put(name, state, restarts=restarts, detail=f"{_cause(code)}{quoted}")
        try:
            async with asyncio.timeout(delay(self._deaths, now)):
                await self._stopping.wait()
        except TimeoutError:
            return


def tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except OSError:
        return "(nothing was logged)"
    return "\n".join(lines[-QUOTED_LINES:]) or "(nothing was logged)"


def _cause(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".old.log"))
