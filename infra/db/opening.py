"""The database of a process, as its settings say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from infra.db.database import Database
from infra.db.postgres import open_postgres, parsed
from infra.db.sqlite import open_database
from infra.db.wakes import RedisWakes
from infra.errors import InvalidArgument, Violation

if TYPE_CHECKING:
    from infra.mesh import Runtime


@asynccontextmanager
async def shared_database(runtime: Runtime) -> AsyncGenerator[Database]:
    """The one of this process: `await runtime.shared(shared_database)`."""
    settings, who = runtime.settings, runtime.ids.uuid()
    redis, address = settings.redis_url, settings.database_url
    if address is None:
        if redis is not None:
            told = "it carries wakes between those that share a PostgreSQL: set SKYAGENT_DATABASE_URL too, or unset it"
            raise InvalidArgument(Violation("SKYAGENT_REDIS_URL", told))
        async with open_database(settings.journal_path) as database:
            yield database
        return
    url, wakes = parsed(address.get_secret_value()), None
    if redis is not None:
        wakes = RedisWakes(redis.get_secret_value(), url.database or "", who)
        runtime.background("journal.wakes", wakes.publish)
    async with open_postgres(address.get_secret_value(), who=who, wakes=wakes) as database:
        yield database
