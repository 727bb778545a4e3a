from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.doctor import Finding, Health
from gateway.facts import facts
from infra.db import open_database
from infra.settings import Settings

pytestmark = pytest.mark.asyncio(loop_scope="function")


async def journal_in(folder: Path) -> Finding:
    return next(found for found in await facts(Settings(data_dir=folder)) if found.subject == "journal")


async def test_the_journal_of_a_mesh_that_is_down_is_opened_and_written(tmp_path: Path) -> None:
    async with open_database(tmp_path / "journal.db"):
        pass
    found = await journal_in(tmp_path)
    assert (found.health, found.detail.endswith("takes writes")) == (Health.WELL, True)


async def test_a_journal_that_is_no_database_is_found_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"garbage!" * 2000)
    found = await journal_in(tmp_path)
    assert (found.health, "Restore it from a backup" in found.detail) == (Health.ILL, True)


async def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert (await journal_in(tmp_path)).health is Health.WELL
    assert not await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
