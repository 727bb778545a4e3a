"""A process for test_drain.py: serves sessions until a signal; with "crash", a loop of it breaks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from infra.mesh import Register, Runtime, Service, serve
from infra.settings import load_settings
from tests.infra.peer import SESSIONS, WORKERS, Sessions, service_of


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncGenerator[Register]:
    async def loop() -> None:
        say(runtime.address)
        if sys.argv[1] == "crash":
            raise RuntimeError("the loop broke")
        try:
            await asyncio.Event().wait()
        finally:
            say(f"loop ended, draining {runtime.draining.is_set()}")

    runtime.background("drainee.loop", loop)
    sessions = Sessions()  # pyright: ignore[reportAbstractUsage]
    async with service_of(sessions).open(runtime) as register:
        yield register
    say("closed")


if __name__ == "__main__":
    asyncio.run(serve([Service("sessions", (SESSIONS, WORKERS), _open)], load_settings()))
