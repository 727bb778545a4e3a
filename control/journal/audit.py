"""The audit: every event of every run against its chain."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from control.journal.journal import Journal, Verification
from control.journal.run import RunHead

_PAGE = 500


async def verify_all(journal: Journal) -> AsyncGenerator[Verification]:
    """A verification of each run, oldest first. Raises DataLoss DATABASE_CORRUPT when the file cannot be read."""
    async for run in every_run(journal):
        yield await journal.verify(run.run_id)


async def every_run(journal: Journal) -> AsyncGenerator[RunHead]:
    """The head of each run of every tenant, oldest first."""
    last = ""
    while page := await journal.heads(after=last, limit=_PAGE):
        for run in page:
            yield run
        last = page[-1].run_id
