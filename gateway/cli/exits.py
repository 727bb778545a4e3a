"""Exit codes, and how a failure is told."""

from __future__ import annotations

import sys
from enum import IntEnum

from infra.errors import SkyError


class Exit(IntEnum):
    """What a command ended with; scripts may rely on them."""

    SUCCEEDED = 0
    FAILED = 1
    USAGE = 2
    WAITS_FOR_PERSON = 3
    DENIED = 4
    BUDGET = 5
    UNAVAILABLE = 69
    INTERRUPTED = 130


_BY_CODE = {
    "INVALID_ARGUMENT": Exit.USAGE,
    "OUT_OF_RANGE": Exit.USAGE,
    "PERMISSION_DENIED": Exit.DENIED,
    "UNAUTHENTICATED": Exit.DENIED,
    "RESOURCE_EXHAUSTED": Exit.BUDGET,
    "DEADLINE_EXCEEDED": Exit.BUDGET,
    "UNAVAILABLE": Exit.UNAVAILABLE,
}


def exit_of(error: SkyError) -> Exit:
    """The exit code of an error."""
    return _BY_CODE.get(error.code, Exit.FAILED)


def report(error: SkyError) -> Exit:
    """Tells a person, on standard error, what was wrong and what to do; returns the exit code."""
    sys.stdout.flush()
    print(f"skyagent: {error.message} [{error.reason}]", file=sys.stderr)
    return exit_of(error)
