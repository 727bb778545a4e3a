"""Kinds of worker that this distribution can run."""

from __future__ import annotations

from typing import cast

from execution.executor import Executor
from execution.worker import WorkerSettings
from infra.clock import Clock
from infra.errors import InvalidArgument, Violation
from infra.settings import Settings

KINDS = ("browser", "noop")
_SLOTS = {"noop": 64}
_DEFAULT_SLOTS = 4


def slots_of(kind: str) -> int:
    """How many steps a worker of this kind does at once unless it is told: a page costs memory, doing nothing none."""
    return _SLOTS.get(kind, _DEFAULT_SLOTS)


def executor_of(kind: str, settings: Settings, worker: WorkerSettings, clock: Clock) -> Executor:
    """What carries out the actions of a kind; only that kind's libraries are loaded."""
    match kind:
        case "browser":
            from execution.browser_worker import executor  # noqa: PLC0415 - see above

            return cast(Executor, executor(settings, worker.folder, clock=clock))
        case "noop":
            from execution.noop import NoopExecutor  # noqa: PLC0415 - see above

            return cast(Executor, NoopExecutor(settings.worker.witness))
        case _:
            raise InvalidArgument(
                Violation("KIND", f"there is no worker of kind {kind!r}; choose from {', '.join(KINDS)}"),
                reason="UNKNOWN_WORKER_KIND",
            )
