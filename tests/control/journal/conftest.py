from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.control.journal.world import World, opened


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where a journal may be made: a file, or the address of a database."""
    if request.param == "sqlite":
        return tmp_path / "journal.db"
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return make()


@pytest.fixture
async def world(place: Path | str) -> AsyncIterator[World]:
    # Not synced at every commit: the power stays on while these tests run, and the disk is slow.
    async with opened(place, synchronous="NORMAL") as ready:
        yield ready
