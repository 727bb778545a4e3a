"""What an error of PostgreSQL means: by the class of its SQLSTATE (appendix A of its manual)."""

from __future__ import annotations

import psycopg
from sqlalchemy.exc import DBAPIError

from infra.db.backend import Fate
from infra.errors import DataLoss, Exhausted, SkyError, Unavailable

_AGAIN_CLASSES = ("08", "40", "57", "53")
_AGAIN = ("25006", "55P03")
"""A server that may only read, as a standby before its promotion; a lock that was not had in time."""
_DISK_FULL = "53100"
_CORRUPT_CLASS = "XX"


def fate(error: BaseException) -> Fate:
    """What is to be done with a batch in which this came."""
    driver = _driver_error(error)
    if driver is None:
        return Fate.DATA
    state = driver.sqlstate or ""
    if state == _DISK_FULL or state.startswith(_CORRUPT_CLASS):
        return Fate.REFUSED
    if state[:2] in _AGAIN_CLASSES or state in _AGAIN or (not state and isinstance(driver, psycopg.OperationalError)):
        return Fate.AGAIN
    return Fate.DATA


def explained(error: BaseException, name: str) -> SkyError | None:
    """The error as a person should see it when the server, or the way to it, failed."""
    driver = _driver_error(error)
    if driver is None:
        return error if isinstance(error, SkyError) else None
    state = driver.sqlstate or ""
    if state == _DISK_FULL:
        return Exhausted(
            "DISK_FULL", f"the server of {name} has no space left: free some there; nothing acknowledged is lost"
        )
    if state.startswith(_CORRUPT_CLASS):
        return DataLoss("DATABASE_CORRUPT", f"{name} is damaged: {_first_line(driver)}; restore it from a backup")
    return unreachable(name, _first_line(driver)) if fate(error) is Fate.AGAIN else None


def unreachable(name: str, detail: str) -> Unavailable:
    """The server cannot be asked now; of what was under way nobody knows until it is read."""
    return Unavailable(
        "DATABASE_UNREACHABLE",
        f"{name} cannot be reached: {detail}. Look whether the server runs and SKYAGENT_DATABASE_URL is right; whatever"
        " was acknowledged is there",
        retry_after=1.0,
    )


def _driver_error(error: BaseException) -> psycopg.Error | None:
    driver = error.orig if isinstance(error, DBAPIError) else error
    return driver if isinstance(driver, psycopg.Error) else None


def _first_line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
