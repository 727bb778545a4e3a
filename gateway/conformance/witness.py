"""The world that a worker under trial acts on: an address that every noop of the profile posts its payload to.

So effects are counted by who is told of them, and a check decides when one ends and with which bytes.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from gateway.conformance.transcript import Transcript
from gateway.conformance.verdicts import Failed

PATIENCE = 10.0  # seconds
_HEAD_LIMIT = 64 * 1024


class Witness:
    """Counts what it is told; `hold` lets an effect last until `let`."""

    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript
        self._told: Counter[bytes] = Counter()
        self._seen: defaultdict[bytes, asyncio.Event] = defaultdict(asyncio.Event)
        self._gates: dict[bytes, asyncio.Event] = {}
        self._answers: dict[bytes, bytes] = {}
        self.url = ""

    def hold(self, marker: bytes) -> None:
        """The effect of this marker does not end before `let`."""
        self._gates[marker] = asyncio.Event()

    def let(self, marker: bytes) -> None:
        """It may end."""
        self._gates[marker].set()

    def answer(self, marker: bytes, evidence: bytes) -> None:
        """What the worker gets, and has to store as evidence."""
        self._answers[marker] = evidence

    def count(self, marker: bytes) -> int:
        """How often it happened."""
        return self._told[marker]

    def repeated(self) -> list[str]:
        """Every marker that happened more than once."""
        return [f"{marker.decode()} {count} times" for marker, count in self._told.items() if count > 1]

    async def sees(self, marker: bytes) -> None:
        """Returns once it happened."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._seen[marker].wait()
        except TimeoutError:
            raise Failed(f"the witness was not told of {marker.decode()!r} within {PATIENCE:g} s") from None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of HTTP/1, then the end of the connection."""
        with suppress(OSError, EOFError, asyncio.LimitOverrunError):
            marker = await _body(reader)
            self._told[marker] += 1
            self._transcript.note(f"witness: {marker.decode(errors='replace')!r} happened")
            self._seen[marker].set()
            if gate := self._gates.get(marker):
                await gate.wait()
            evidence = self._answers.get(marker, b"")
            head = f"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {len(evidence)}\r\n"
            writer.write(head.encode() + b"connection: close\r\n\r\n" + evidence)
            await writer.drain()
        writer.close()

    def end(self) -> None:
        """Lets everything go."""
        for gate in self._gates.values():
            gate.set()


@asynccontextmanager
async def witness(transcript: Transcript) -> AsyncGenerator[Witness]:
    """A running one on loopback."""
    running = Witness(transcript)
    server = await asyncio.start_server(running.serve, "127.0.0.1", 0, limit=_HEAD_LIMIT)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield running
    finally:
        running.end()
        server.close()
        await server.wait_closed()


async def _body(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    length = next((line.partition(":")[2] for line in head.split("\r\n") if line.startswith("content-length:")), "0")
    return await reader.readexactly(int(length))
