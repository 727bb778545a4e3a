"""What stands before every handler: who calls, may they, for how long, is it valid; and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message

from infra.auth import GRANTS, Caller, Role, Verifier, receive, received
from infra.channels import TENANT_KEY
from infra.errors import (
    DeadlineExceeded,
    Denied,
    Internal,
    InvalidArgument,
    Precondition,
    SkyError,
    Unauthenticated,
    Unavailable,
    Violation,
    cause_of,
)
from infra.ids import Ids
from infra.log import event_logger
from infra.settings import Settings
from infra.status import DETAILS_KEY, from_rpc_error, to_status
from infra.validation import CheckingContext, check, check_stream, tolerant
from infra.vital_signs import OK, RpcMetrics
from skyagent.common.v1 import options_pb2 as options

_Q = TypeVar("_Q")
_R = TypeVar("_R")
if TYPE_CHECKING:  # grpc's classes are generic in their stubs only
    Context = grpc.aio.ServicerContext[object, object]
    _Handler = grpc.RpcMethodHandler[object, object]
    _Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Q, _R] | None]]
    _Maker = Callable[..., _Handler]
Unary = Callable[[Message, "Context | None"], Awaitable[Message]]
Permissions = Mapping[str, options.Permission.ValueType]
"""Full method path, as in "/skyagent.run.v1.RunService/GetRun", to the permission that it needs."""

OPEN_SERVICES: Final = frozenset(
    {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
)
"""Served to anybody: they tell nothing but the contract and whether we live."""

_log = event_logger(__name__)


def permissions_of(services: Iterable[ServiceDescriptor]) -> Permissions:
    """The permission of every method; Precondition names the first that declares none."""
    found: dict[str, options.Permission.ValueType] = {}
    for service in services:
        for method in service.methods:
            permission = method.GetOptions().Extensions[options.permission]
            if permission == options.PERMISSION_UNSPECIFIED:
                raise Precondition(
                    "METHOD_WITHOUT_PERMISSION",
                    f"{method.full_name} says no permission; add `option (skyagent.common.v1.permission)` to it",
                )
            found[f"/{service.full_name}/{method.name}"] = permission
    return found


def unary_methods(services: Iterable[ServiceDescriptor]) -> frozenset[str]:
    """Full paths of the methods that take one request and give one response."""
    return frozenset(
        f"/{service.full_name}/{method.name}"
        for service in services
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    )


class Guard(grpc.aio.ServerInterceptor):
    """Guards every method, unary or streaming, in one place."""

    def __init__(
        self, permissions: Permissions, verifier: Verifier, settings: Settings, ids: Ids, measured: RpcMetrics
    ) -> None:
        self._permissions = permissions
        self._verifier = verifier
        self._settings = settings
        self._ids = ids
        self._measured = measured
        self._guarded: dict[str, _Handler] = {}
        self._streams: set[asyncio.Task[object]] = set()
        self._draining = False

    def end_streams(self) -> None:
        """End what would never end by itself; its callers are told to connect again."""
        self._draining = True
        for task in self._streams:
            task.cancel()

    async def intercept_service(
        self, continuation: _Continuation[_Q, _R], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[_Q, _R] | None:
        path = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        if path not in self._guarded:
            self._guarded[path] = self._guard(path, cast("_Handler", handler))
        return cast("grpc.RpcMethodHandler[_Q, _R]", self._guarded[path])

    def _guard(self, path: str, handler: _Handler) -> _Handler:
        method = _Method(path, self._permissions.get(path), _behaviour(handler), handler.request_streaming)
        streams = handler.request_streaming or handler.response_streaming
        run = self._stream if streams else self._unary
        open_to_all = path.split("/")[1] in OPEN_SERVICES or method.permission == options.PERMISSION_PUBLIC
        measured = None if streams or path not in self._permissions else self._measured

        async def guarded(request: object, context: Context) -> object:
            begun = self._measured.begun()
            code = "CANCELLED"
            try:
                if not open_to_all:
                    receive(self._admit(method, context))
                answer = await run(method, request, context)
                code = OK
                return answer
            except (grpc.aio.AbortError, grpc.aio.InternalError):  # already answered; or nobody is left to answer
                raise
            except Exception as raised:  # noqa: BLE001  # the one place where everything ends
                error = self._understood(path, raised)
                code = error.code
                await _abort(context, error)
            finally:
                if measured is not None:
                    measured.ended(path, code, begun)

        make = _MAKERS[handler.request_streaming, handler.response_streaming]
        return make(guarded, tolerant(handler.request_deserializer), handler.response_serializer)

    def _admit(self, method: _Method, context: Context) -> Caller:
        metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
        scheme, _, token = metadata.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("TOKEN_MISSING", "no token came along; send `authorization: Bearer <token>`")
        who = self._verifier.verify(token)
        _permit(who, method.path, method.permission)
        return _for_tenant(who, metadata.get(TENANT_KEY))

    async def local(self, path: str, handler: Unary, request: Message, who: Caller) -> Message:
        """A unary call from within this process, under the rules of all others but for the deadline.

        Raises SkyError: what any other caller would be told.
        """
        begun, code = self._measured.begun(), "CANCELLED"
        try:
            _permit(who, path, self._permissions.get(path))
            check(request)
            with received(who):
                answer = await handler(request, None)
                code = OK
                return answer
        except Exception as raised:
            error = self._understood(path, raised)
            code = error.code
            raise error from raised
        finally:
            self._measured.ended(path, code, begun)

    async def _unary(self, method: _Method, request: object, context: Context) -> object:
        remaining = cast("float | None", context.time_remaining())
        if remaining is not None and remaining > self._settings.max_deadline:
            most = self._settings.max_deadline
            raise InvalidArgument(
                Violation("grpc-timeout", f"a deadline may be at most {most:g} s; got {remaining:.0f} s")
            )
        # The caller's own deadline is kept by grpc, which cancels this task.
        limit = asyncio.timeout(self._settings.default_deadline if remaining is None else None)
        try:
            async with limit:
                return await cast("Awaitable[object]", method.handler(check(request), context))
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                "DEFAULT_DEADLINE", f"took over {self._settings.default_deadline:g} s; set a longer deadline"
            ) from None

    async def _stream(self, method: _Method, request: object, context: Context) -> object:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        self._streams.add(task)
        try:
            if method.request_streaming:
                requests = check_stream(cast("AsyncIterable[object]", request))
                answer = method.handler(requests, cast("Context", CheckingContext(context)))
            else:
                answer = method.handler(check(request), context)
            if not isinstance(answer, AsyncIterable):
                return await cast("Awaitable[object]", answer)
            async with aclosing(cast("AsyncGenerator[object]", answer)) as responses:
                async for response in responses:
                    await context.write(response)
        except asyncio.CancelledError:
            if not self._draining:
                raise
            task.uncancel()
            raise Unavailable("DRAINING", "the server is going away; connect again", retry_after=1.0) from None
        finally:
            self._streams.discard(task)
        return None

    def _understood(self, path: str, raised: Exception) -> SkyError:
        error = _cause(raised)
        if isinstance(error, SkyError) and error.code not in ("INTERNAL", "DATA_LOSS"):
            return error
        error_id = self._ids.uuid()
        _log.error("rpc.failed", error=error, method=path, error_id=error_id)
        if isinstance(error, SkyError):
            error.metadata = {**error.metadata, "error_id": error_id}
            return error
        return Internal("UNEXPECTED", f"something broke here; look for {error_id} in the log", error_id=error_id)


@dataclass(frozen=True, slots=True)
class _Method:
    path: str
    permission: options.Permission.ValueType | None
    handler: Callable[[object, Context], object]
    request_streaming: bool


_MAKERS: Mapping[tuple[bool, bool], _Maker] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def _behaviour(handler: _Handler) -> Callable[[object, Context], object]:
    found = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    return cast("Callable[[object, Context], object]", found)


async def _abort(context: Context, error: SkyError) -> NoReturn:
    status = to_status(error)
    await context.abort(grpc.StatusCode[error.code], status.message, ((DETAILS_KEY, status.SerializeToString()),))


def _permit(who: Caller, path: str, permission: options.Permission.ValueType | None) -> None:
    if permission is None:
        raise Internal("METHOD_NOT_DECLARED", f"{path} is served but not declared by its Service")
    if not who.may(permission):
        raise _denied(who, path, permission)


def _denied(who: Caller, path: str, permission: options.Permission.ValueType) -> Denied:
    name = options.Permission.Name(permission).removeprefix("PERMISSION_")
    able = ", ".join(role for role, granted in GRANTS.items() if permission in granted)
    return Denied(
        "PERMISSION_DENIED",
        f"role {who.role} may not call {path}: it needs {name}; use a token of role {able}",
        role=who.role,
        permission=name,
    )


def _for_tenant(who: Caller, tenant: str | None) -> Caller:
    if tenant is None or tenant == who.tenant:
        return who
    if who.role is not Role.INTERNAL:
        raise Denied("TENANT_DENIED", f"role {who.role} may not act for tenant {tenant!r}; drop {TENANT_KEY}")
    return replace(who, tenant=tenant)


def _cause(raised: BaseException) -> BaseException:
    """What really happened, be it in a task of ours or at the peer that was asked."""
    error = cause_of(raised)
    if not isinstance(error, grpc.aio.AioRpcError):
        return error
    told = from_rpc_error(error)
    # That our own token was refused says nothing about the caller's.
    return Internal("PEER_REFUSED", f"a peer refused us: {told.message}") if told.code == "UNAUTHENTICATED" else told
