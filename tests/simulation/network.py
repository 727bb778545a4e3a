"""Streams between processes of the simulation, at the seam where gRPC stands: what a stub calls, what a servicer sees.

What gRPC promises holds here, too: messages of a call come in order, each once, or the call breaks and the rest of them
is lost. Everything else is chance: how long each takes, when a call breaks, who cannot reach whom for a while. Bytes
that a process had handed over before it was killed may still arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, Self, cast

import grpc
from google.protobuf.message import Message

from infra.auth import Caller, receive
from infra.errors import SkyError, Unavailable, cause_of
from infra.status import DETAILS_KEY, to_status
from tests.simulation.loop import Process, VirtualLoop

ANY = "any"
"""The address at which some living control plane answers."""
KEEPALIVE = 30.0
"""Seconds after which a call that hears nothing from the other side is given up, as channels are configured."""
_EOF = cast("Message", grpc.aio.EOF)
_RETRY_CUT = 0.25


class Handler(Protocol):
    """What generated code registers for a method; as grpc.RpcMethodHandler."""

    request_streaming: bool
    response_streaming: bool
    request_deserializer: Callable[[bytes], Message]
    response_serializer: Callable[[Message], bytes]
    unary_unary: Callable[..., Any] | None
    unary_stream: Callable[..., Any] | None
    stream_unary: Callable[..., Any] | None
    stream_stream: Callable[..., Any] | None


@dataclass(eq=False)
class Host:
    """What a process serves, collected as a server collects it."""

    process: Process
    served: dict[str, Handler] = field(default_factory=dict[str, Handler])

    def add_generic_rpc_handlers(self, handlers: Iterable[object]) -> None:
        """For generated code, which tells the same by add_registered_method_handlers."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """For generated code: the methods of a service."""
        self.served |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


class Network:
    """Who listens where, who cannot reach whom, and every call that is under way."""

    def __init__(self, loop: VirtualLoop, chance: Random, told: Callable[[str], None]) -> None:
        self.loop = loop
        self.chance = chance
        self.told = told
        self.hosts: dict[str, Host] = {}
        self.cut: set[frozenset[str]] = set()
        self.slow = 1.0
        self.calls: dict[int, Call] = {}
        self._made = 0

    def latency(self) -> float:
        """Mostly a fraction of a millisecond, seldom very long."""
        usual = self.chance.expovariate(1000) * self.slow
        return usual if self.chance.random() > 0.01 else usual + self.chance.expovariate(2)

    def channel(self, who: Caller, process: Process, address: str) -> Channel:
        return Channel(self, who, process, address)

    def host(self, address: str) -> Host | None:
        """Who listens there; at ANY, whoever listens at all."""
        if address != ANY or not self.hosts:
            return self.hosts.get(address)
        return self.hosts[self.chance.choice(sorted(self.hosts))]

    def parted(self, one: str, other: str) -> bool:
        return frozenset((one, other)) in self.cut

    def break_one(self) -> None:
        """One call is reset on the way, chosen by chance."""
        if self.calls:
            call = self.calls[self.chance.choice(sorted(self.calls))]
            self.told(f"reset {call.source.name} -> {call.address} {call.path}")
            call.reset("reset on the way")

    def heal(self, pair: frozenset[str], *, broken: bool) -> None:
        """They reach each other again; when it took too long, their calls have been given up meanwhile."""
        self.cut.discard(pair)
        for call in list(self.calls.values()) if broken else ():
            if frozenset((call.source.name, call.target)) == pair:
                call.reset("no answer to keepalive")

    def died(self, process: Process) -> None:
        """Its kernel closes what it had open; what it had written before still travels."""
        for call in list(self.calls.values()):
            if call.source is process:
                call.up.put(None)
            elif call.host is not None and call.host.process is process:
                call.down.put(Unavailable("UNAVAILABLE", "connection reset by peer"))
        self.hosts = {address: host for address, host in self.hosts.items() if host.process is not process}

    def number(self, call: Call) -> int:
        self._made += 1
        self.calls[self._made] = call
        return self._made


class _Way:
    """One direction of a call: in order, with delay, held while its ends are parted."""

    def __init__(self, call: Call, deliver: Callable[[bytes | SkyError | None], None]) -> None:
        self._call = call
        self._deliver = deliver
        self._waiting: deque[bytes | SkyError | None] = deque()
        self._pumping = False

    def put(self, item: bytes | SkyError | None) -> None:
        self._waiting.append(item)
        if not self._pumping:
            self._pumping = True
            self._later(self._call.network.latency())

    def drop(self) -> None:
        """What is under way is lost."""
        self._waiting.clear()

    def _later(self, seconds: float) -> None:
        # The world carries messages: whoever sent one may be dead by now.
        loop = self._call.network.loop
        loop.call_later(seconds, self._pump, context=loop.outside)

    def _pump(self) -> None:
        network = self._call.network
        if self._waiting and network.parted(self._call.source.name, self._call.target):
            self._later(_RETRY_CUT)
            return
        if self._waiting:
            self._deliver(self._waiting.popleft())
        self._pumping = bool(self._waiting)
        if self._pumping:
            self._later(network.chance.expovariate(20_000) * network.slow)


class Call:
    """One call, from the side that made it; grpc.aio's StreamStreamCall as far as anybody uses it."""

    def __init__(
        self, channel: Channel, path: str, serialize: Callable[[Message], bytes], parse: Callable[[bytes], Message]
    ) -> None:
        self.network, self.source, self.path = channel.network, channel.process, path
        self.address, self.who = channel.address, channel.who
        self.host = self.network.host(channel.address)
        self.target = self.host.process.name if self.host else channel.address
        self._serialize, self._parse = serialize, parse
        self.up, self.down = _Way(self, self._arrived_up), _Way(self, self._arrived_down)
        self._number = self.network.number(self)
        self._answers: deque[Message | SkyError] = deque()
        self._requests: deque[Message | None] = deque()
        self._answered, self._requested = asyncio.Event(), asyncio.Event()
        self._over: SkyError | None = None
        self._cancelled = False
        self._task: asyncio.Task[Any] | None = None
        self._handler: Handler | None = None
        self._opened = False
        if self.host is None:
            self._later(self.network.latency(), self._fail, Unavailable("UNAVAILABLE", "connection refused"))
        else:
            self._later(self.network.latency(), self._open)

    # The side that calls.

    async def write(self, request: Message) -> None:
        if self._over is not None or self._cancelled:
            raise asyncio.InvalidStateError("the call is over")
        self.up.put(self._serialize(request))
        await asyncio.sleep(0)

    async def done_writing(self) -> None:
        self.up.put(None)

    async def read(self) -> Message:
        await self._answered.wait()
        if self._cancelled:
            raise asyncio.CancelledError
        answer = self._answers[0]
        if isinstance(answer, SkyError):
            raise rpc_error(answer)
        if answer is not _EOF:
            self._answers.popleft()
            if not self._answers:
                self._answered.clear()
        return answer

    def cancel(self) -> bool:
        """Ends it at once on this side, and a little later on the other."""
        if not self._cancelled and self._over is None:
            self._cancelled = True
            self._answered.set()
            self._later(self.network.latency(), self._end_task)
        return True

    def done(self) -> bool:
        return self._over is not None or self._cancelled

    def __aiter__(self) -> AsyncIterator[Message]:
        return self._each()

    async def _each(self) -> AsyncIterator[Message]:
        while (answer := await self.read()) is not _EOF:
            yield answer

    # What happens on the way.

    def reset(self, why: str) -> None:
        """Both sides learn that it is over, and what was under way is lost."""
        self.up.drop()
        self.down.drop()
        self._later(self.network.latency(), self._fail, Unavailable("UNAVAILABLE", why))
        self._later(self.network.latency(), self._end_task)

    def _later(self, seconds: float, work: Callable[..., None], *args: object) -> None:
        self.network.loop.call_later(seconds, work, *args, context=self.network.loop.outside)

    def _fail(self, error: SkyError) -> None:
        if self._over is None:
            self._over = error
            self._answers.append(error)
            self._answered.set()
            self.network.calls.pop(self._number, None)

    def _arrived_down(self, item: bytes | SkyError | None) -> None:
        if self._over is not None:
            return
        if isinstance(item, SkyError):
            self._fail(item)
            return
        if item is None:
            self._over = Unavailable("OVER", "the call is over")
            self.network.calls.pop(self._number, None)
        self._answers.append(_EOF if item is None else self._parse(item))
        self._answered.set()

    def _open(self) -> None:
        """It reaches the host, if that still lives and can be reached."""
        host = self.host
        if host is None or not host.process.alive:
            self._fail(Unavailable("UNAVAILABLE", "connection refused"))
        elif self.network.parted(self.source.name, self.target):
            self._later(_RETRY_CUT, self._open)
        elif self.path not in host.served:
            self._fail(Unavailable("UNAVAILABLE", f"{self.path} is not served yet"))
        else:
            self._opened = True
            self._handler = host.served[self.path]
            # Through the process, which may be frozen.
            self.network.loop.call_soon(self._start, context=host.process.context())

    def _start(self) -> None:
        loop = self.network.loop
        self._task = loop.create_task(self._served(cast("Handler", self._handler)))

    def _end_task(self) -> None:
        self.network.calls.pop(self._number, None)
        if self._task is not None and self.host is not None and self.host.process.alive:
            self.network.loop.call_soon(self._task.cancel, context=self.host.process.context())

    def _arrived_up(self, item: bytes | SkyError | None) -> None:
        if self.host is None or not self.host.process.alive:
            self._fail(Unavailable("UNAVAILABLE", "connection reset by peer"))
            return
        handler = self.host.served.get(self.path)
        if item is not None and handler is not None and isinstance(item, bytes):
            self._requests.append(handler.request_deserializer(item))
        elif item is None:
            self._requests.append(None)
            if not self.source.alive:
                self._end_task()
        self._requested.set()

    # The side that serves.

    async def _served(self, handler: Handler) -> None:
        receive(self.who)
        try:
            await self._answer(handler)
        except asyncio.CancelledError:
            raise
        except Exception as raised:  # noqa: BLE001 -- the one place where everything ends, as in the interceptor
            error = cause_of(raised)
            told = error if isinstance(error, SkyError) else Unavailable("BROKEN", repr(error))
            if not isinstance(error, SkyError):
                self.network.loop.errors.append(f"{self.path}: {error!r}")
            self.down.put(told)
        else:
            self.down.put(None)

    async def _answer(self, handler: Handler) -> None:
        behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
        if behaviour is None:
            return
        given = self._said() if handler.request_streaming else await anext(self._said())
        answer = behaviour(given, _Context(self, handler))
        if handler.response_streaming and hasattr(answer, "__aiter__"):
            async for part in answer:
                self.answer(handler, part)
        elif handler.response_streaming:
            await answer
        else:
            self.answer(handler, await answer)

    def answer(self, handler: Handler, message: Message) -> None:
        self.down.put(handler.response_serializer(message))

    async def _said(self) -> AsyncIterator[Message]:
        while True:
            while not self._requests:
                self._requested.clear()
                await self._requested.wait()
            request = self._requests.popleft()
            if request is None:
                return
            yield request


@dataclass(frozen=True)
class _Context:
    """What a servicer is given, as far as ours use it."""

    call: Call
    handler: Handler

    async def write(self, message: Message) -> None:
        self.call.answer(self.handler, message)
        await asyncio.sleep(0)


class Channel:
    """A channel for stubs; as grpc.aio.Channel, as far as stubs use it."""

    def __init__(self, network: Network, who: Caller, process: Process, address: str) -> None:
        self.network, self.who, self.process, self.address = network, who, process, address

    def stream_stream(self, path: str, **how: Any) -> Callable[..., Call]:  # noqa: ANN401 -- as generated code passes it
        def call(given: AsyncIterator[Message] | None = None, **_: object) -> Call:
            made = self._call(path, how)
            if given is not None:
                self.network.loop.create_task(_feed(made, given))
            return made

        return call

    def unary_stream(self, path: str, **how: Any) -> Callable[..., Call]:  # noqa: ANN401 -- the same
        def call(request: Message, **_: object) -> Call:
            made = self._call(path, how)
            self.network.loop.create_task(_feed(made, _one(request)))
            return made

        return call

    def stream_unary(self, path: str, **how: Any) -> Callable[..., Any]:  # noqa: ANN401 -- the same
        async def call(given: AsyncIterator[Message], *, timeout: float = 30.0, **_: object) -> Message:  # noqa: ASYNC109 -- as grpc has it
            return await self._unary(path, how, given, timeout)

        return call

    def unary_unary(self, path: str, **how: Any) -> Callable[..., Any]:  # noqa: ANN401 -- the same
        async def call(request: Message, *, timeout: float | None = None, **_: object) -> Message:  # noqa: ASYNC109 -- the same
            return await self._unary(path, how, _one(request), timeout or 30.0)

        return call

    async def _unary(self, path: str, how: dict[str, Any], given: AsyncIterator[Message], seconds: float) -> Message:
        call = self._call(path, how)
        try:
            async with asyncio.timeout(seconds):
                await _feed(call, given)
                return await call.read()
        except TimeoutError:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata(), details="too late"
            ) from None
        except asyncio.InvalidStateError:
            raise rpc_error(Unavailable("UNAVAILABLE", "the call is over")) from None
        finally:
            call.cancel()

    def _call(self, path: str, how: dict[str, Any]) -> Call:
        return Call(self, path, how["request_serializer"], how["response_deserializer"])

    async def close(self, grace: float | None = None) -> None:
        """Calls end with whoever made them."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


async def _feed(call: Call, given: AsyncIterator[Message]) -> None:
    async for request in given:
        await call.write(request)
    await call.done_writing()


async def _one(request: Message) -> AsyncIterator[Message]:
    yield request


def rpc_error(error: SkyError) -> grpc.aio.AioRpcError:
    """As a client sees what a servicer raised."""
    status = to_status(error)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(grpc.StatusCode[error.code], grpc.aio.Metadata(), trailing, details=status.message)
