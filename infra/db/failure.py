"""What a failing SQLite means: which errors end the process, which belong to one write, and what a person should do."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from infra.db.engine import DriverError
from infra.disk import disk_full, unwritable
from infra.errors import DataLoss, SkyError, Unavailable

EXIT_IO_ERROR = 74  # EX_IOERR of sysexits.h

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_STORAGE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL)
_PRIMARY = 0xFF


def storage_failure(error: BaseException, path: Path) -> SkyError | None:
    """The error as a person should see it when storage itself failed; None when only the data of one write is wrong.

    Unavailable (busy) and Exhausted (full) mean that nothing was written; after any other one, nobody knows.
    """
    driver = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(driver, DriverError):
        return None
    code = getattr(driver, "sqlite_errorcode", 0) & _PRIMARY
    if code in _BUSY:
        return busy(path)
    if code == sqlite3.SQLITE_FULL:
        return disk_full(path)
    if code in _CORRUPT:
        return corrupt(path, str(driver))
    if code in _STORAGE:
        return unwritable(path, f"{driver} ({getattr(driver, 'sqlite_errorname', code)})")
    return None


def busy(path: Path) -> Unavailable:
    """Another program holds the lock of the file."""
    return Unavailable(
        "DATABASE_BUSY",
        f"{path} is locked by another program; nothing was written. Close the program that holds it and try again",
        retry_after=1.0,
        path=str(path),
    )


def corrupt(path: Path, detail: str) -> DataLoss:
    """The file is damaged or no database."""
    return DataLoss(
        "DATABASE_CORRUPT",
        f"{path} is not a sound SQLite database ({detail}). Restore it from a backup, or move it and its -wal and -shm "
        "files away to start with an empty one",
        path=str(path),
    )


def outcome_unknown(path: Path) -> Unavailable:
    """Nobody can say whether a commit happened."""
    return Unavailable(
        "OUTCOME_UNKNOWN",
        f"storage failed while {path} was being written: whether this write is there is not known until it is read",
        path=str(path),
    )


def end_process(failure: SkyError) -> None:
    """Stop at once: after a failed commit neither the cache nor the file can be believed, only a fresh start can."""
    sys.stderr.write(f"skyagent: {failure}\nskyagent: the process ends, because what was being written is not known\n")
    sys.stderr.flush()
    os._exit(EXIT_IO_ERROR)
