"""One `up` for one data directory: an advisory lock that the kernel releases with its holder's life."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from infra.disk import explained
from infra.errors import Precondition
from infra.processes import ProcessId, process_id


@contextmanager
def up_lock(path: Path) -> Generator[None]:
    """Held for the block; raises Precondition ALREADY_UP naming the holder.

    Raises Exhausted DISK_FULL and Precondition DATA_UNWRITABLE, too.
    """
    with _opened(path) as file:
        if not _taken(file.fileno()):
            pid = file.read().partition(" ")[0] or "?"
            raise Precondition(
                "ALREADY_UP",
                f"process {pid} already runs the mesh of {path.parent}; use it, or end it with `skyagent down`",
                pid=pid,
            )
        own = process_id(os.getpid())
        with explained(path):
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), f"{os.getpid()} {own.start_time if own else 0}".encode(), 0)
        yield


def _opened(path: Path) -> IO[str]:
    with explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+")


def holder(path: Path) -> ProcessId | None:
    """Who holds the lock; None when nobody does."""
    try:
        with path.open("r+") as file:
            if _taken(file.fileno()):
                return None
            pid, _, start = file.read().partition(" ")
            return ProcessId(int(pid), int(start))
    except (FileNotFoundError, ValueError):
        return None


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
