"""Every error the system raises on purpose. One interceptor maps them to gRPC; nothing else names a status code.

A message says what was wrong, with which value, and what to do. A reason is UPPER_SNAKE and stable: clients match it.
Standard library only, so that the pure core may raise them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, cast


class SkyError(Exception):
    """The root. `code` is the canonical gRPC status name (google.rpc.Code)."""

    code: ClassVar[str] = "UNKNOWN"

    def __init__(self, reason: str, message: str, **metadata: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def __str__(self) -> str:
        return f"{self.message} [{self.reason}]"


def cause_of(error: BaseException) -> BaseException:
    """What went wrong first, out of the wrapping of however many TaskGroups."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is wrong; `field` is its path in the request, `description` what is wrong and how to mend it."""

    field: str
    description: str


class InvalidArgument(SkyError):
    """The request can never be right as it stands, whatever the state of the system."""

    code = "INVALID_ARGUMENT"

    def __init__(self, *violations: Violation, reason: str = "INVALID_ARGUMENT", **metadata: str) -> None:
        described = "; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations)
        super().__init__(reason, described or "the request is not valid", **metadata)
        self.violations = violations


class NotFound(SkyError):
    """The thing does not exist, or belongs to another tenant, which must look the same."""

    code = "NOT_FOUND"


class AlreadyExists(SkyError):
    """The thing that was to be created is there already."""

    code = "ALREADY_EXISTS"


class Conflict(SkyError):
    """Somebody else was first: read again, decide again, try again."""

    code = "ABORTED"


class Precondition(SkyError):
    """The state of the system forbids it; trying again is of no use until somebody changes that state."""

    code = "FAILED_PRECONDITION"


class OutOfRange(SkyError):
    """Past the valid range, for instance a cursor beyond the end of a journal."""

    code = "OUT_OF_RANGE"


class Denied(SkyError):
    """The caller is known and may not."""

    code = "PERMISSION_DENIED"


class Unauthenticated(SkyError):
    """The caller is not known."""

    code = "UNAUTHENTICATED"


class _Retryable(SkyError):
    def __init__(self, reason: str, message: str, *, retry_after: float | None = None, **metadata: str) -> None:
        super().__init__(reason, message, **metadata)
        self.retry_after = retry_after


class Exhausted(_Retryable):
    """A quota, budget or queue is full; `retry_after` is in seconds, None when waiting does not help."""

    code = "RESOURCE_EXHAUSTED"


class Unavailable(_Retryable):
    """A part of the system is away for now; `retry_after` is in seconds."""

    code = "UNAVAILABLE"


class DeadlineExceeded(SkyError):
    """It took longer than the caller allowed; whether it happened is not known."""

    code = "DEADLINE_EXCEEDED"


class Cancelled(SkyError):
    """The caller, or the end of the process, took it back."""

    code = "CANCELLED"


class Unimplemented(SkyError):
    """This build or backend does not do that."""

    code = "UNIMPLEMENTED"


class DataLoss(SkyError):
    """Stored data is gone or was altered: a hash or digest does not match."""

    code = "DATA_LOSS"


class Internal(SkyError):
    """A broken promise of our own; never the caller's fault."""

    code = "INTERNAL"
