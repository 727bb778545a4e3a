"""The database of a process, as its settings say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from infra.db.database import Database
from infra.db.postgres import open_postgres
from infra.db.sqlite import open_database

if TYPE_CHECKING:
    from infra.mesh import Runtime


@asynccontextmanager
async def shared_database(runtime: Runtime) -> AsyncGenerator[Database]:
    """The one of this process: `await runtime.shared(shared_database)`."""
    address = runtime.settings.database_url
    if address is None:
        async with open_database(runtime.settings.journal_path, metrics=runtime.metrics) as database:
            yield database
    else:
        async with open_postgres(
            address.get_secret_value(), who=runtime.ids.uuid(), metrics=runtime.metrics
        ) as database:
            yield database
