"""SkyError to google.rpc.Status and back, so that an error keeps its reason, fields and wait across the wire."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import (  # pyright: ignore[reportMissingTypeStubs]  # the wheel has them, unmarked
    code_pb2,
    error_details_pb2,
    status_pb2,
)

from infra import errors
from infra.errors import InvalidArgument, SkyError, Violation

DOMAIN: Final = "skyagent"
DETAILS_KEY: Final = "grpc-status-details-bin"
"""The trailing metadata that carries google.rpc.Status (gRPC richer error model)."""
# A status travels in HTTP/2 trailers; clients refuse more than 8 KiB of those.
_MESSAGE_CHARACTERS = 1000
_VIOLATION_CHARACTERS = 2500

_BY_CODE: dict[str, type[SkyError]] = {
    kind.code: kind
    for kind in (
        errors.NotFound, errors.AlreadyExists, errors.Conflict, errors.Precondition, errors.OutOfRange, errors.Denied,
        errors.Unauthenticated, errors.Exhausted, errors.Unavailable, errors.DeadlineExceeded, errors.Cancelled,
        errors.Unimplemented, errors.DataLoss, errors.Internal,
    )
}  # fmt: skip


def to_status(error: SkyError) -> status_pb2.Status:
    """The status of an error, with ErrorInfo and, where they apply, BadRequest and RetryInfo."""
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)]
    if isinstance(error, InvalidArgument):
        details.append(error_details_pb2.BadRequest(field_violations=_fitting(error.violations)))
    if isinstance(error, errors.Exhausted | errors.Unavailable) and error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        details.append(retry)
    message = error.message[:_MESSAGE_CHARACTERS]
    return status_pb2.Status(code=code_pb2.Code.Value(error.code), message=message, details=map(_packed, details))


def from_rpc_error(error: grpc.aio.AioRpcError) -> SkyError:
    """The error that the other side raised, typed again."""
    code, message = error.code().name, error.details() or f"the call ended with {error.code().name}"
    details = {detail.type_url.rpartition("/")[2]: detail.value for detail in _details(error)}
    info = error_details_pb2.ErrorInfo.FromString(details.get("google.rpc.ErrorInfo", b""))
    reason = info.reason or code
    if code == InvalidArgument.code:
        bad = error_details_pb2.BadRequest.FromString(details.get("google.rpc.BadRequest", b""))
        violations = [Violation(v.field, v.description) for v in bad.field_violations] or [Violation("", message)]
        typed: SkyError = InvalidArgument(*violations, reason=reason)
    else:
        typed = _BY_CODE.get(code, errors.Internal)(reason, message)
    if isinstance(typed, errors.Exhausted | errors.Unavailable) and "google.rpc.RetryInfo" in details:
        delay = error_details_pb2.RetryInfo.FromString(details["google.rpc.RetryInfo"]).retry_delay
        typed.retry_after = delay.ToNanoseconds() / 1e9
    typed.metadata = dict(info.metadata)
    return typed


def _details(error: grpc.aio.AioRpcError) -> Iterable[AnyMessage]:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value).details
    return ()


def _fitting(violations: Iterable[Violation]) -> list[error_details_pb2.BadRequest.FieldViolation]:
    """As many violations as a status can carry; always the first."""
    fitting: list[error_details_pb2.BadRequest.FieldViolation] = []
    room = _VIOLATION_CHARACTERS
    for violation in violations:
        room -= len(violation.field) + len(violation.description)
        if fitting and room < 0:
            break
        description = violation.description[:_MESSAGE_CHARACTERS]
        fitting.append(error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=description))
    return fitting


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed
