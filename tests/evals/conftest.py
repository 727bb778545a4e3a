"""A real application for every test, and twelve invoices."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest

from evals import records
from evals.sites import ledger
from infra.clock import SystemClock
from infra.ids import seeded_ids


@pytest.fixture
def invoices() -> tuple[records.Invoice, ...]:
    return records.make(seeded_ids(7, SystemClock()))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncGenerator[ledger.Ledger]:
    async with ledger.running(tmp_path / "site", ledger.Account("clerk", "correct horse", "key")) as running:
        yield running


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application's tables as it makes them itself, without rows."""

    async def made(directory: Path) -> Path:
        async with ledger.running(directory, ledger.Account("clerk", "correct horse", "key")) as running:
            return running.database

    return asyncio.run(made(tmp_path_factory.mktemp("empty")))


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """A copy of the empty database, for one test; also of what its application left in the write-ahead log."""
    copy = tmp_path / "ledger.sqlite3"
    with closing(sqlite3.connect(empty_database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy
