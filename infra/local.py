"""Unary calls to services of this very process: the same rules, and no wire.

Whether a peer is here or elsewhere is configuration, so a caller cannot tell: it passes copies of messages, is judged
by the same Guard as role internal, has the same deadlines, and gets the same AioRpcError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar, cast

import grpc
from google.protobuf.message import Message

from infra.auth import SYSTEM_TENANT, Caller, Role, acting_tenant
from infra.errors import DeadlineExceeded, SkyError, Unavailable
from infra.interceptors import Guard, Unary
from infra.status import DETAILS_KEY, to_status

if TYPE_CHECKING:  # grpc's classes are generic in their stubs only
    _Handler = grpc.RpcMethodHandler[object, object]
MessageT = TypeVar("MessageT", bound=Message)
T = TypeVar("T")


class LocalCalls:
    """What this process serves. Services register here as they do on a server."""

    def __init__(self, guard: Guard, draining: asyncio.Event) -> None:
        self._guard = guard
        self._draining = draining
        self._served: dict[str, Unary] = {}

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """For generated code, which tells the same by add_registered_method_handlers."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, _Handler]) -> None:
        """For generated code: the methods of a service."""
        for name, handler in handlers.items():
            if handler.unary_unary is not None:
                self._served[f"/{service}/{name}"] = cast("Unary", handler.unary_unary)

    def unary(self, path: str, remote: Callable[..., object], deadline: float) -> Callable[..., object]:
        """A method that is called here when it is served here and the call carries no metadata of its own."""

        def invoke(request: Message, *, timeout: float | None = None, **rest: object) -> object:
            handler = self._served.get(path)
            if handler is None or rest.get("metadata"):
                return remote(request, timeout=timeout, **rest)
            return self._call(path, handler, request, deadline if timeout is None else timeout)

        return invoke

    async def _call(self, path: str, handler: Unary, request: Message, deadline: float) -> object:
        who = Caller("control-plane", acting_tenant() or SYSTEM_TENANT, Role.INTERNAL)
        try:
            if self._draining.is_set():
                raise Unavailable("DRAINING", "the server is going away; connect again", retry_after=1.0)
            async with asyncio.timeout(deadline):
                return _copied(await self._guard.local(path, handler, _copied(request), who))
        except TimeoutError as late:
            raise _rpc_error(DeadlineExceeded("DEADLINE_EXCEEDED", f"took over {deadline:g} s")) from late
        except SkyError as refused:
            raise _rpc_error(refused) from refused


def without_waiting(work: Coroutine[object, object, T]) -> T | None:
    """What work comes to when it waits for nothing, as a local call mostly does; else it is dropped, and this is None.

    Raises what the work raises.
    """
    try:
        work.send(None)
    except StopIteration as done:
        return cast("T", done.value)
    work.close()
    return None


def _copied(message: MessageT) -> MessageT:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _rpc_error(error: SkyError) -> grpc.aio.AioRpcError:
    status = to_status(error)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(grpc.StatusCode[error.code], grpc.aio.Metadata(), trailing, details=status.message)
