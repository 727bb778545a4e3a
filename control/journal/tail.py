"""The live tail: every event after a cursor, once, in order, without a gap.

Subscribe first, read the database from the cursor, then follow what is committed; drop what was seen; whenever an event
does not follow on the last one, read the database.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

from control.journal.event import StoredEvent
from control.journal.hub import Hub, Subscription

PAGE = 256
POLL_SECONDS = 2.0

Read = Callable[[int], Awaitable[tuple[StoredEvent, ...]]]


async def tail(hub: Hub, read: Read, run_id: str, after_seq: int) -> AsyncGenerator[StoredEvent]:
    """`read(after_seq)` returns up to PAGE events of the run from the database."""
    seen = after_seq
    with hub.subscribed(run_id) as subscription:
        while True:
            page = await read(seen)
            for event in page:
                yield event
                seen = event.seq
            while len(page) < PAGE:
                news = await _news(subscription)
                fresh = [event for event in news if event.seq > seen]
                if not news or (fresh and fresh[0].seq != seen + 1):
                    break
                for event in fresh:
                    yield event
                    seen = event.seq


async def _news(subscription: Subscription) -> tuple[StoredEvent, ...]:
    """What was committed meanwhile; nothing after a while, so that a lost wake costs no more than a poll."""
    try:
        async with asyncio.timeout(POLL_SECONDS):
            return await subscription.take()
    except TimeoutError:
        return ()
