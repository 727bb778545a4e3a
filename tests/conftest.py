import asyncio
from collections.abc import Callable, Iterator
from itertools import count

import pytest
from hypothesis import settings

from infra.db import open_postgres
from tests.servers.postgres import Postgres, temporary_postgres

# How long an example may take depends on what else the machine does; that a test ends at all, pytest-timeout sees to.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with temporary_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def new_database(postgres: Postgres) -> Callable[[], str]:
    """Makes a database with all tables, and tells its address: what takes the time is done once."""
    numbers = count()

    async def migrate() -> None:
        async with open_postgres(postgres.database("migrated"), who="template"):
            pass

    asyncio.run(migrate())
    return lambda: postgres.database(f"skyagent_{next(numbers)}", template="migrated")
