"""A file that one process holds for its life, so that two never share the same data."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from infra.db.failure import os_failure
from infra.errors import Precondition

_PID_DIGITS = 20


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold an exclusive flock on `path` (made if absent, never removed: a removed lock file can be held twice).

    The descriptor is close-on-exec, so children do not inherit the lock; the kernel drops it when the holder dies.
    Raises Precondition DATA_IN_USE, which names the holder's pid.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise os_failure(failure, path) from failure
    try:
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as taken:
        pid = os.pread(descriptor, _PID_DIGITS, 0).decode(errors="replace").strip() or "unknown"
        raise Precondition(
            "DATA_IN_USE",
            f"{path.parent} is in use by process {pid}: stop it first (`skyagent down`), "
            "or set SKYAGENT_DATA_DIR to another folder",
            path=str(path),
            pid=pid,
        ) from taken
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as failure:
        raise os_failure(failure, path) from failure
