"""Files of a data folder: held by one process, and with errors that say what to do."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from infra.errors import Exhausted, Precondition, SkyError

_PID_DIGITS = 20


@contextmanager
def held(path: Path) -> Generator[None]:
    """Hold an exclusive flock on `path` (made if absent, never removed: a removed lock file can be held twice).

    The descriptor is close-on-exec, so children do not inherit the lock; the kernel drops it when the holder dies.
    Raises Precondition DATA_IN_USE, which names the holder's pid.
    """
    with explained(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _take(descriptor, path)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def explained(path: Path) -> Generator[None]:
    """Turn errors of the operating system into what a person can act on; `path` is what was being used."""
    try:
        yield
    except OSError as failure:
        raise os_failure(failure, path) from failure


def os_failure(error: OSError, path: Path) -> SkyError:
    """An operating-system error on the way to a file, as a person should see it."""
    if error.errno in (ENOSPC, EDQUOT):
        return disk_full(path)
    return unwritable(path, error.strerror or str(error))


def disk_full(path: Path) -> Exhausted:
    """The file system, or a quota on it, has no room."""
    return Exhausted(
        "DISK_FULL",
        f"no space left to write {path}: free space on that file system and try again; nothing acknowledged is lost",
        path=str(path),
    )


def unwritable(path: Path, detail: str) -> Precondition:
    """The file or its folder cannot be used."""
    return Precondition(
        "DATA_UNWRITABLE",
        f"cannot use {path}: {detail}. Make its folder writable for this user, or set SKYAGENT_DATA_DIR to another",
        path=str(path),
    )


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable, after a file was created or renamed in it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
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
    with explained(path):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
