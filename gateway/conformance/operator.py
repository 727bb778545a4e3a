"""Who starts, kills and stops the worker under trial: this program, or the person who started it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from gateway.conformance.stream import PATIENCE
from gateway.conformance.verdicts import Failed, NotTried
from infra.clock import Clock
from infra.processes import Child, end_group, spawn
from infra.settings import environment

SECOND_PATIENCE = 20.0  # seconds for a second process to find that the journal is held, its start included
_PREFIX = "SKYAGENT_WORKER__"


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker under trial is told; each is a variable and a placeholder of its command."""

    connect: str
    worker_id: str
    token_file: Path
    data_dir: Path
    witness: str

    def placeholders(self) -> dict[str, str]:
        """By the name that a command uses in braces."""
        return {
            "{address}": self.connect,
            "{worker_id}": self.worker_id,
            "{token_file}": str(self.token_file),
            "{data_dir}": str(self.data_dir),
            "{witness}": self.witness,
        }

    def variables(self) -> dict[str, str]:
        """The same for its environment."""
        return {
            f"{_PREFIX}CONNECT": self.connect,
            f"{_PREFIX}ID": self.worker_id,
            f"{_PREFIX}TOKEN_FILE": str(self.token_file),
            f"{_PREFIX}WITNESS": self.witness,
            "SKYAGENT_DATA_DIR": str(self.data_dir),
        }


class Operator(Protocol):
    """Brings a worker up and down. What one cannot do raises NotTried with the reason."""

    @property
    def running(self) -> bool: ...

    async def start(self) -> None:
        """Start it, again with the same journal."""
        ...

    async def kill(self) -> None:
        """End it at once, as kill -9 does; returns when it is dead."""
        ...

    async def terminate(self) -> None:
        """Send SIGTERM."""
        ...

    async def ended(self) -> int | None:
        """Returns once it has ended by itself: its exit code, or None where that cannot be seen."""
        ...

    async def second(self) -> int | None:
        """Start another process of it beside the first; its exit code, or None if it goes on."""
        ...

    async def erase(self) -> None:
        """Remove its journal, while it does not run."""
        ...

    def log(self) -> str:
        """The end of what it printed."""
        ...


class Launcher:
    """Starts the command itself; nothing that it started outlives the block of `launcher`."""

    def __init__(self, command: Sequence[str], place: Place, folder: Path, clock: Clock) -> None:
        self._command = [_filled(word, place) for word in command]
        self._place = place
        self._log = folder / "worker.log"
        self._clock = clock
        self._child: Child | None = None
        self._started: list[Child] = []

    @property
    def running(self) -> bool:
        return self._child is not None

    async def start(self) -> None:
        self._child = await self._spawn()

    async def kill(self) -> None:
        child, self._child = self._present(), None
        _signal(child, signal.SIGKILL)
        await child.wait()

    async def terminate(self) -> None:
        _signal(self._present(), signal.SIGTERM)

    async def ended(self) -> int | None:
        child = self._present()
        try:
            async with asyncio.timeout(PATIENCE):
                code = await child.wait()
        except TimeoutError:
            raise Failed(f"the process did not end within {PATIENCE:g} s") from None
        self._child = None
        return code

    async def died(self) -> int:
        """Returns when the process has ended; it counts as not running then."""
        child = self._present()
        code = await child.wait()
        if self._child is child:
            self._child = None
        return code

    async def second(self) -> int | None:
        other = await self._spawn()
        try:
            async with asyncio.timeout(SECOND_PATIENCE):
                return await other.wait()
        except TimeoutError:
            return None
        finally:
            _signal(other, signal.SIGKILL)

    async def erase(self) -> None:
        await asyncio.to_thread(shutil.rmtree, self._place.data_dir)
        self._place.data_dir.mkdir(mode=0o700)

    def log(self) -> str:
        return self._log.read_text(errors="replace")[-8000:] if self._log.exists() else ""

    async def end(self) -> None:
        """Kills whatever is left of everything that was started."""
        for child in self._started:
            _signal(child, signal.SIGKILL)
            await end_group(child.identity, self._clock, 0)
            await child.wait()

    async def _spawn(self) -> Child:
        env = environment() | self._place.variables()
        child = await spawn(self._command, self._clock, env=env, log_path=self._log)
        self._started.append(child)
        return child

    def _present(self) -> Child:
        if self._child is None:
            raise Failed("the worker's process has ended by itself")
        return self._child


@asynccontextmanager
async def launcher(command: Sequence[str], place: Place, folder: Path, clock: Clock) -> AsyncGenerator[Launcher]:
    """One that cleans up after itself, also when it is interrupted."""
    launching = Launcher(command, place, folder, clock)
    try:
        yield launching
    finally:
        await launching.end()


class Person:
    """Somebody else runs the worker: asked at a terminal, and where nobody can be asked the check is not tried."""

    def __init__(self, ask: Callable[[str], Awaitable[None]] | None) -> None:
        self._ask = ask
        self._running = True

    @property
    def running(self) -> bool:
        return self._running

    async def start(self) -> None:
        await self._asked("start the worker again, with the same journal")
        self._running = True

    async def kill(self) -> None:
        await self._asked("end the worker with kill -9")
        self._running = False

    async def terminate(self) -> None:
        await self._asked("send SIGTERM to the worker")

    async def ended(self) -> int | None:
        self._running = False
        return None

    async def second(self) -> int | None:
        raise NotTried("the worker was started by hand: give its command after `--` to have a second one tried")

    async def erase(self) -> None:
        await self._asked("remove the worker's journal")

    def log(self) -> str:
        return ""

    async def _asked(self, what: str) -> None:
        if self._ask is None:
            raise NotTried(f"nobody is here to {what}: give the worker's command after `--`")
        await self._ask(what)


def _filled(word: str, place: Place) -> str:
    for placeholder, value in place.placeholders().items():
        word = word.replace(placeholder, value)
    return word


def _signal(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
