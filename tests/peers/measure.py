"""Runs of 20 steps, some at a time, until the time is over; printed as one JSON line. Standard library only.

It is also run inside the peers' own environment, as a script beside those that import it.
"""

import asyncio
import json
import resource
import time
from collections.abc import Awaitable, Callable

STEPS = 20
PAYLOAD = b"x" * 200

# One run of STEPS steps; it tells how long each step took, in seconds, by calling what it is given.
Run = Callable[[Callable[[float], None]], Awaitable[None]]


async def measure(system: str, run: Run, *, at_once: int, seconds: float) -> int:
    """Every run that was begun is finished and counted; how many steps that were."""
    took: list[float] = []
    start, cpu = time.perf_counter(), _cpu_seconds()

    async def keep_running() -> None:
        while time.perf_counter() < start + seconds:
            await run(took.append)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(keep_running())
    elapsed, cpu = time.perf_counter() - start, _cpu_seconds() - cpu
    took.sort()
    found = {
        "system": system,
        "at_once": at_once,
        "steps_per_s": len(took) / elapsed,
        "p50_ms": took[len(took) // 2] * 1e3,
        "p99_ms": took[int(len(took) * 0.99)] * 1e3,
        "cpu_us": cpu / len(took) * 1e6,
    }
    print(json.dumps(found), flush=True)
    return len(took)


def say_size(system: str, bytes_per_step: float) -> None:
    """One JSON line of what a step leaves on the disk."""
    print(json.dumps({"system": system, "bytes_per_step": bytes_per_step}), flush=True)


def say_settings(system: str, **settings: object) -> None:
    """One JSON line of what the figures were measured with."""
    print(json.dumps({"system": system, "settings": settings}), flush=True)


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
