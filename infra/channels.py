"""Channels to services: with a token, a deadline on every unary call, and a few retries where repeating is harmless."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeVar, cast

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from infra.auth import acting_tenant
from infra.errors import Precondition

TENANT_KEY = "x-skyagent-tenant"
"""Metadata by which the role internal says for whom it acts."""
MAX_MESSAGE_BYTES = 4 << 20
"""Of a request."""
MAX_ANSWER_BYTES = 64 << 20
"""Of an answer, as the gateway has it too: the state of a run with thousands of records is one message."""
Metadata = tuple[tuple[str, str | bytes], ...]
GivenMetadata = grpc.aio.Metadata | Sequence[tuple[str, str | bytes]] | None

_Q = TypeVar("_Q")
_R = TypeVar("_R")
_Out = Callable[[_Q], bytes] | None
_In = Callable[[bytes], _R] | None
_Call = TypeVar("_Call", bound=Callable[..., object])
if TYPE_CHECKING:  # grpc's classes are generic in their stubs only
    _Unary = grpc.aio.UnaryUnaryMultiCallable[_Q, _R]
_SAFE_PREFIXES = ("Get", "List")
_RETRY_POLICY = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_OPTIONS = (
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    # A restarted peer is back within a second or two: do not wait out a long backoff.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.use_local_subchannel_pool", 1),
    # Peers are ours: a proxy named in the environment is for the web.
    ("grpc.enable_http_proxy", 0),
)


class Readiness(Enum):
    """What a call does while its peer cannot be reached."""

    FAIL = "fail"
    WAIT = "wait"


class Local(Protocol):
    """What is served by this very process (infra.local)."""

    def unary(self, path: str, remote: Callable[..., object], deadline: float) -> Callable[..., object]:
        """`remote`, or the method itself once it is served here."""
        ...


def file_token(path: Path) -> Callable[[], str]:
    """Reads a token file, and again whenever it changes; Precondition when it cannot."""
    held: tuple[int, str] = (0, "")

    def read() -> str:
        nonlocal held
        try:
            changed = path.stat().st_mtime_ns
            if changed != held[0]:
                held = changed, path.read_text().strip()
        except OSError as bad:
            raise Precondition(
                "NO_TOKEN", f"cannot read the token {path}: {bad}; run `skyagent up` to make it"
            ) from bad
        return held[1]

    return read


def dial(
    address: str,
    *,
    token: Callable[[], str] | None = None,
    readiness: Readiness = Readiness.FAIL,
    deadline: float = 30.0,
    retry: Iterable[ServiceDescriptor] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
    local: Local | None = None,
) -> grpc.aio.Channel:
    """A channel for stubs. Nothing is connected until the first call.

    `deadline` in seconds is that of unary calls which name none; calls of `retry`'s services that only read (Get*,
    List*) are tried up to 4 times while the peer is UNAVAILABLE. With Readiness.WAIT a call waits for a peer that is
    away, as long as its deadline allows, instead of failing at once. Unary methods that `local` serves need no wire.
    """
    options = (*_OPTIONS, ("grpc.service_config", _service_config(retry)))
    channel = grpc.aio.insecure_channel(address, options=options, interceptors=list(interceptors))
    return _Channel(channel, token, deadline, readiness, local)


def bearer(token: str) -> Metadata:
    """The metadata that carries a token."""
    return (("authorization", f"Bearer {token}"),)


def _service_config(services: Iterable[ServiceDescriptor]) -> str:
    names = [
        {"service": service.full_name, "method": method.name}
        for service in services
        for method in service.methods
        if method.name.startswith(_SAFE_PREFIXES)
    ]
    return json.dumps({"methodConfig": [{"name": names, "retryPolicy": _RETRY_POLICY}] if names else []})


class _Channel(grpc.aio.Channel):
    """Adds what every call carries unless it says otherwise.

    Client interceptors could do it too, but they replace the call object of a bidirectional stream by queues.
    """

    def __init__(
        self,
        inner: grpc.aio.Channel,
        token: Callable[[], str] | None,
        deadline: float,
        readiness: Readiness,
        local: Local | None,
    ) -> None:
        self._inner = inner
        self._local = local
        self._token = token
        self._deadline = deadline
        self._waits = readiness is Readiness.WAIT

    def unary_unary(
        self, method: str, request_serializer: _Out[_Q] = None, response_deserializer: _In[_R] = None, **_: object
    ) -> grpc.aio.UnaryUnaryMultiCallable[_Q, _R]:
        call = self._inner.unary_unary(method, request_serializer, response_deserializer)
        remote = self._defaulted(call, self._deadline)
        if self._local is None:
            return remote
        return cast("_Unary[_Q, _R]", self._local.unary(method, remote, self._deadline))

    def unary_stream(
        self, method: str, request_serializer: _Out[_Q] = None, response_deserializer: _In[_R] = None, **_: object
    ) -> grpc.aio.UnaryStreamMultiCallable[_Q, _R]:
        call = self._inner.unary_stream(method, request_serializer, response_deserializer)
        return self._defaulted(call, None)

    def stream_unary(
        self, method: str, request_serializer: _Out[_Q] = None, response_deserializer: _In[_R] = None, **_: object
    ) -> grpc.aio.StreamUnaryMultiCallable[_Q, _R]:
        call = self._inner.stream_unary(method, request_serializer, response_deserializer)
        return self._defaulted(call, None)

    def stream_stream(
        self, method: str, request_serializer: _Out[_Q] = None, response_deserializer: _In[_R] = None, **_: object
    ) -> grpc.aio.StreamStreamMultiCallable[_Q, _R]:
        call = self._inner.stream_stream(method, request_serializer, response_deserializer)
        return self._defaulted(call, None)

    async def close(self, grace: float | None = None) -> None:
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: FBT001, FBT002  # as grpc has it
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._inner.channel_ready()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)

    def _defaulted(self, call: _Call, deadline: float | None) -> _Call:
        def invoke(
            *request: object,
            timeout: float | None = None,
            metadata: GivenMetadata = None,
            wait_for_ready: bool | None = None,
            **rest: object,
        ) -> object:
            return call(
                *request,
                timeout=deadline if timeout is None else timeout,
                metadata=self._metadata(metadata),
                wait_for_ready=self._waits if wait_for_ready is None else wait_for_ready,
                **rest,
            )

        return cast(_Call, invoke)

    def _metadata(self, given: GivenMetadata) -> Metadata:
        own = tuple(given or ())
        if self._token is None or any(key == "authorization" for key, _ in own):
            return own
        tenant = acting_tenant()
        return (*own, *bearer(self._token()), *(((TENANT_KEY, tenant),) if tenant else ()))
