"""Frames that wait for the writer of a stream, taken together when they are ready together.

A message on the wire costs far more than a frame in it, so a busy stream carries many frames in one message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Generic, TypeVar

from google.protobuf.message import Message

MOST_FRAMES: Final = 256
_MOST_BYTES: Final = 1024 * 1024
"""Of frames that travel together; a larger one travels alone."""

FrameT = TypeVar("FrameT", bound=Message)


class Outbox(Generic[FrameT]):
    """Frames in order. Belongs to one event loop and has one reader."""

    def __init__(self) -> None:
        self._frames: deque[FrameT] = deque()
        self._ready = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: FrameT) -> None:
        """Queues a frame; after `close` it is dropped."""
        if not self._closed:
            self._frames.append(frame)
            self._ready.set()

    def close(self) -> None:
        """Ends it once everything queued was taken."""
        self._closed = True
        self._ready.set()

    async def take(self, most: int) -> list[FrameT]:
        """Waits for a frame and takes up to `most` that fit one message; nothing at all means the end."""
        await self._ready.wait()
        taken: list[FrameT] = []
        room = _MOST_BYTES
        while self._frames and len(taken) < most:
            room -= self._frames[0].ByteSize()
            if taken and room < 0:
                break
            taken.append(self._frames.popleft())
        if not self._frames and not self._closed:
            self._ready.clear()
        return taken
