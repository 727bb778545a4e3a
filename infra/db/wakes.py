"""Wakes between processes through Redis or Valkey, in the place of PostgreSQL's NOTIFY.

Everything here is a hint: said after the commit, never waited for, lost when Redis is away, and then everybody polls.
It comes back by itself, and whoever listens is told to look at everything, since something may be lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from infra.db.database import EVERYTHING
from infra.errors import InvalidArgument, Violation
from infra.log import event_logger

if TYPE_CHECKING:
    from redis.asyncio import Redis

_PATIENCE = 1.0
"""Seconds that Redis has to take one message."""
_PAUSE = 0.5
_LISTENS = 10.0
"""Seconds of silence after which a listener asks whether Redis is still there."""
_MANY = 1000

log = event_logger(__name__)


class RedisWakes:
    """Says and hears topics on one channel. Belongs to one event loop; `say` may be called from any thread."""

    def __init__(self, address: str, channel: str, who: str) -> None:
        """`who` marks this process's own words, which it need not hear. Raises InvalidArgument for no Redis URL."""
        self._address, self._channel, self._who = address, f"skyagent:{channel}", who
        self._loop = asyncio.get_running_loop()
        self._topics = set[str]()
        self._ready = asyncio.Event()
        self._away = False
        self._client(1.0)  # refuses an address of another form now, and connects to nothing

    def say(self, topics: frozenset[str]) -> None:
        """Lets other processes know soon. Returns at once, whatever Redis does."""
        if topics:
            with suppress(RuntimeError):  # the loop is closed: this process ends
                self._loop.call_soon_threadsafe(self._put, topics)

    async def publish(self) -> None:
        """Sends what is said, as one message however much came meanwhile, until cancelled."""
        async with self._client(_PATIENCE) as client:
            while True:
                await self._ready.wait()
                self._ready.clear()
                topics, self._topics = self._topics, set[str]()
                said = ",".join(sorted(topics)) if len(topics) <= _MANY else EVERYTHING
                try:
                    async with asyncio.timeout(_PATIENCE):
                        await client.publish(self._channel, f"{self._who}|{said}")  # pyright: ignore[reportUnknownMemberType]
                except (OSError, TimeoutError, _redis_error()) as error:
                    self._lost(error)
                    self._put(frozenset((EVERYTHING,)))
                    await asyncio.sleep(_PAUSE)  # noqa: TID251 -- a pause between tries to connect is real time
                else:
                    self._back()

    async def news(self) -> AsyncGenerator[frozenset[str]]:
        """Topics that other processes said. At the beginning and after every break it says EVERYTHING."""
        while True:
            try:
                async with self._client(None) as client, client.pubsub() as heard:  # pyright: ignore[reportUnknownMemberType]
                    await heard.subscribe(self._channel)
                    while True:
                        message = cast(
                            "dict[str, object] | None",
                            await heard.get_message(timeout=_LISTENS),  # pyright: ignore[reportUnknownMemberType]
                        )
                        if message is None:
                            await heard.ping()  # pyright: ignore[reportUnknownMemberType]
                        elif message["type"] == "subscribe":
                            self._back()
                            yield frozenset((EVERYTHING,))
                        elif message["type"] == "message":
                            sender, _, topics = str(message["data"]).partition("|")
                            if sender != self._who:
                                yield frozenset(topics.split(","))
            except (OSError, TimeoutError, _redis_error()) as error:
                self._lost(error)
                await asyncio.sleep(_PAUSE)  # noqa: TID251 -- a pause between tries to connect is real time

    def _put(self, topics: frozenset[str]) -> None:
        self._topics |= topics
        self._ready.set()

    def _client(self, patience: float | None) -> Redis:
        from redis.asyncio import Redis  # noqa: PLC0415 -- costs time at start, and most have none
        from redis.asyncio.retry import Retry  # noqa: PLC0415
        from redis.backoff import NoBackoff  # noqa: PLC0415

        try:
            return Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
                self._address,
                decode_responses=True,
                socket_connect_timeout=_PATIENCE,
                socket_timeout=patience,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as bad:
            form = "redis://user:password@host:port, rediss://… or unix://…"
            raise InvalidArgument(Violation("SKYAGENT_REDIS_URL", f"it must have the form {form}")) from bad

    def _lost(self, error: BaseException) -> None:
        """Says so once, and not at every try."""
        if not self._away:
            self._away = True
            log.warning("wakes.away", error=error, meanwhile="runs and watchers poll")

    def _back(self) -> None:
        if self._away:
            self._away = False
            log.info("wakes.back")


def _redis_error() -> type[Exception]:
    from redis.exceptions import RedisError  # noqa: PLC0415

    return RedisError
