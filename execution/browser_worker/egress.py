"""The one way out of a session: a SOCKS5 relay (RFC 1928) that dials for its browser, where the mission may go.

What is watched inside a browser misses redirects, workers and windows that have just opened. A connection misses
nothing, names are resolved here, and the address that is judged is the address that is dialled.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from execution.browser_worker.hosts import HostList, leads_astray
from execution.browser_worker.one_request import OneRequest

_VERSION: Final = 5
_NO_AUTHENTICATION: Final = b"\x05\x00"
_CONNECT: Final = 1
_DONE, _NOT_ALLOWED, _UNREACHABLE, _REFUSED, _NO_SUCH_COMMAND = 0, 2, 4, 5, 7
_HANDSHAKE: Final = 10.0
_DIAL: Final = 15.0
_CHUNK: Final = 64 * 1024
_REMEMBERED: Final = 64


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a host was not dialled, or could not be: in words, and whether it was forbidden."""

    why: str
    forbidden: bool


class _Undialled(Exception):
    def __init__(self, code: int, failure: Failure) -> None:
        super().__init__(failure.why)
        self.code, self.failure = code, failure


class Egress:
    """Listens on loopback between `open` and `close`, for one session."""

    def __init__(self) -> None:
        #: Where connections may go now.
        self.hosts = HostList(())
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[object]] = set()
        self._failures: dict[str, Failure] = {}

    @property
    def address(self) -> str:
        """As Chromium wants to be told of a proxy; it then resolves no name itself."""
        if self._server is None:
            raise RuntimeError("the egress is not open")
        return f"socks5://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        """Ends every connection; returns when they have ended."""
        if self._server is not None:
            self._server.close()
        for talk in self._talks:
            talk.cancel()
        if self._talks:
            await asyncio.wait(self._talks)

    def failure(self, host: str, port: int) -> Failure | None:
        """Why the last connection there did not come about; None when it did. The browser is only told a number."""
        return self._failures.get(_place(host, port))

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        talk = asyncio.current_task()
        if talk is not None:
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)
        # However a connection ends, it is over; a cancelled one is closed by us.
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await self._talk(reader, writer)
        writer.close()

    async def _talk(self, reader: StreamReader, writer: StreamWriter) -> None:
        async with asyncio.timeout(_HANDSHAKE):
            asked = await _asked(reader, writer)
        if asked is None:
            writer.write(_reply(_NO_SUCH_COMMAND))
            return
        try:
            upstream = await self._dial(*asked)
            self._remember(_place(*asked), None)
        except _Undialled as failed:
            self._remember(_place(*asked), failed.failure)
            writer.write(_reply(failed.code))
            return
        writer.write(_reply(_DONE))
        try:
            await _relay((reader, writer), upstream)
        finally:
            upstream[1].close()

    async def _dial(self, host: str, port: int) -> tuple[StreamReader, StreamWriter]:
        if refusal := self.hosts.refusal_of(host, port):
            raise _Undialled(_NOT_ALLOWED, Failure(refusal, forbidden=True))
        failure = _Undialled(_UNREACHABLE, Failure(f"{host} has no address", forbidden=False))
        for address in await _addresses(host, port):
            if leads_astray(host, address):
                why = f"{host} leads to {address}, an address of this machine; name that address if it is meant"
                failure = _Undialled(_NOT_ALLOWED, Failure(why, forbidden=True))
                continue
            try:
                async with asyncio.timeout(_DIAL):
                    return await asyncio.open_connection(str(address), port)
            except OSError as error:  # a timeout is one, too
                why = os.strerror(error.errno) if error.errno else "no answer"
                failure = _Undialled(_REFUSED, Failure(f"{host}:{port}: {why}", forbidden=False))
        raise failure

    def _remember(self, place: str, failure: Failure | None) -> None:
        self._failures.pop(place, None)
        if failure is not None:
            self._failures[place] = failure
        if len(self._failures) > _REMEMBERED:
            del self._failures[next(iter(self._failures))]


async def _asked(reader: StreamReader, writer: StreamWriter) -> tuple[str, int] | None:
    """Host and port of the first request; None for anything but CONNECT."""
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(_NO_AUTHENTICATION)
    version, command, _, kind = await reader.readexactly(4)
    match kind:
        case 1 | 4:
            host = str(ip_address(await reader.readexactly(4 if kind == 1 else 16)))
        case 3:
            (length,) = await reader.readexactly(1)
            host = (await reader.readexactly(length)).decode("ascii", "replace")
        case _:
            return None
    (port,) = struct.unpack(">H", await reader.readexactly(2))
    return (host.strip("[]").lower(), port) if (version, command) == (_VERSION, _CONNECT) else None


async def _addresses(host: str, port: int) -> list[str]:
    with suppress(ValueError):
        return [str(ip_address(host))]  # nothing to look up
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def _relay(client: tuple[StreamReader, StreamWriter], upstream: tuple[StreamReader, StreamWriter]) -> None:
    """Both ways until one side ends."""
    request = OneRequest()
    async with asyncio.TaskGroup() as group:
        up = group.create_task(_pump(client[0], upstream[1], request.up))
        down = group.create_task(_pump(upstream[0], client[1], request.down))
        await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        down.cancel()
    client[1].write(request.rest())
    with suppress(OSError):
        await client[1].drain()


async def _pump(source: StreamReader, target: StreamWriter, through: Callable[[bytes], bytes]) -> None:
    with suppress(OSError):  # a connection that is reset has ended
        while data := await source.read(_CHUNK):
            target.write(through(data))
            await target.drain()


def _reply(code: int) -> bytes:
    return bytes((_VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0))


def _place(host: str, port: int) -> str:
    return f"{host}:{port}"
