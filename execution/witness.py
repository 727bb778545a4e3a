"""Telling a witness by HTTP that something happened: the effect that a trial of the protocol counts."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from infra.errors import Unavailable

_END_OF_HEAD = b"\r\n\r\n"


async def tell(address: str, payload: bytes) -> bytes:
    """Posts the payload once and returns the body of the answer, however long that takes; cancelling ends it.

    Raises Unavailable: nobody took it, or the answer is not 200.
    """
    parts = urlsplit(address)
    head = f"POST {parts.path or '/'} HTTP/1.0\r\nhost: {parts.netloc}\r\ncontent-length: {len(payload)}\r\n\r\n"
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        try:
            writer.write(head.encode() + payload)
            await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
    except OSError as failure:
        raise Unavailable("NO_WITNESS", f"the witness {address} cannot be told: {failure}") from failure
    status, _, body = answer.partition(_END_OF_HEAD)
    if b" 200 " not in status.split(b"\r\n")[0] + b" ":
        raise Unavailable("NO_WITNESS", f"the witness {address} answered {status[:80]!r}")
    return body
