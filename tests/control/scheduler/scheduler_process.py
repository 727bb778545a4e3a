"""mission-api and the scheduler as a process that may die at a joint: `python -m …scheduler_process [JOINT]`.

It ends as `kill -9` would, the first time that it comes to the joint: before or after the commit of a turn, before or
after a run is started, after that is written down.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from control.mission_api.service import SERVICE as MISSION_API
from control.scheduler.firings import FiringStore
from control.scheduler.missions import Missions
from control.scheduler.service import SERVICE
from infra.log import configure_logging
from infra.mesh import serve
from infra.settings import load_settings

P = ParamSpec("P")
T = TypeVar("T")
JOINTS = ("before turn", "after turn", "before start", "after start", "after started")


def dying(work: Callable[P, Awaitable[T]], *, before: bool, after: bool) -> Callable[P, Awaitable[T]]:
    async def done(*args: P.args, **kwargs: P.kwargs) -> T:
        if before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = await work(*args, **kwargs)
        if after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return done


if __name__ == "__main__":
    joint = sys.argv[1] if len(sys.argv) > 1 else ""
    for kind, name, noun in (
        (FiringStore, "take", "turn"),
        (Missions, "start", "start"),
        (FiringStore, "started", "started"),
    ):
        dies = dying(getattr(kind, name), before=joint == f"before {noun}", after=joint == f"after {noun}")
        setattr(kind, name, dies)
    settings = load_settings()
    configure_logging(settings.log)
    asyncio.run(serve([MISSION_API, SERVICE], settings))
