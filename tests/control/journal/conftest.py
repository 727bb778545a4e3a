from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.control.journal.world import World, opened


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # Not synced at every commit: the power stays on while these tests run, and the disk is slow.
    async with opened(tmp_path / "journal.db", synchronous="NORMAL") as ready:
        yield ready
