"""The counting worker as a process that a test starts, kills and starts again."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

PATIENCE = 30.0


class WorkerProcess:
    """One process of the counting worker."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def exit_code(self) -> int:
        """How it ended; negative is the signal."""
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def stderr(self) -> str:
        assert self._process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            return (await self._process.stderr.read()).decode()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self.exit_code()


class Site:
    """The worker's folder and the world that it acts on: both outlive its processes."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.effects = folder / "effects"

    @asynccontextmanager
    async def worker(
        self, address: str, *, crash_at: str = "", drain_grace: float = 20.0
    ) -> AsyncGenerator[WorkerProcess]:
        """A running worker; whatever is left of it at the end is killed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.execution.counting_worker",
            *("--connect", address, "--data-dir", str(self.data_dir), "--effects", str(self.effects)),
            *("--crash-at", crash_at, "--drain-grace", str(drain_grace)),
            stderr=asyncio.subprocess.PIPE,
        )
        worker = WorkerProcess(process)
        try:
            yield worker
        finally:
            await worker.kill()

    def executions(self) -> Counter[str]:
        """How often each "<step>.<attempt>" took effect."""
        return Counter(self.effects.read_text().split() if self.effects.exists() else ())
