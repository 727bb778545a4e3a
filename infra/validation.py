"""Requests that keep the rules written beside their fields (protovalidate), and what to say when they do not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from dataclasses import dataclass
from typing import cast

import grpc
import protovalidate
from google.protobuf.message import DecodeError, Message

from infra.errors import InvalidArgument, Violation

_VALUE_CHARACTERS = 80
Deserializer = Callable[[bytes], object] | None


@dataclass(frozen=True, slots=True)
class _Undecodable:
    reason: str


def tolerant(deserialize: Deserializer) -> Deserializer:
    """Lets bytes that are no message pass, so that check() may refuse them by name instead of grpc by traceback."""
    if deserialize is None:
        return None

    def parse(data: bytes) -> object:
        try:
            return deserialize(data)
        except DecodeError as bad:
            return _Undecodable(str(bad))

    return parse


def check(request: object) -> object:
    """The request itself; InvalidArgument names every field that breaks a rule."""
    if isinstance(request, _Undecodable):
        raise InvalidArgument(Violation("", f"the bytes are not a request of this method: {request.reason}"))
    if violations := protovalidate.collect_violations(cast("Message", request)):
        raise InvalidArgument(*map(_violation, violations))
    return request


async def check_stream(requests: AsyncIterable[object]) -> AsyncGenerator[object]:
    """The requests one by one, each checked when it is asked for."""
    async for request in requests:
        yield check(request)


class CheckingContext:
    """A servicer context whose read() checks, for handlers that read instead of iterating."""

    def __init__(self, context: grpc.aio.ServicerContext[object, object]) -> None:
        self._context = context

    async def read(self) -> object:
        request = await self._context.read()
        return request if request is grpc.aio.EOF else check(request)

    def __getattr__(self, name: str) -> object:
        return getattr(self._context, name)


def _violation(found: protovalidate.Violation) -> Violation:
    path = ""
    for element in found.proto.field.elements if found.proto.field else ():
        subscript = "" if element.subscript is None else f"[{element.subscript.value!r}]"
        path += ("." if path else "") + element.field_name + subscript
    value = found.field_value
    got = f"; got {value!r:.{_VALUE_CHARACTERS}}" if isinstance(value, str | int | float) else ""
    return Violation(path, found.proto.message + got)
