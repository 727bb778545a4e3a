"""Archiving and erasing runs, for `skyagent runs` and `skyagent audit`."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from gateway.cli.output import when
from gateway.client import Services
from infra.errors import InvalidArgument, Violation
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api

ARCHIVED = ("run", "events", "journal", "archive")
ERASURES = ("erased", "run", "events", "by", "why", "files")
ERASE_SECONDS = 3000.0
"""Every page of the database is written anew, so that nothing is left of what was erased."""
_ENDED = (ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED, ev.RUN_PHASE_CANCELLED)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Moved:
    """A run, and what archiving it came to; nothing for a run that only would be archived."""

    run_id: str
    answer: api.ArchiveRunResponse | None

    def row(self) -> tuple[str, ...]:
        """As a line of a table."""
        if self.answer is None:
            return self.run_id, "", "", "would be archived"
        found = self.answer
        return self.run_id, str(found.events), f"{found.journal_bytes:,} B", f"{found.archive_bytes:,} B"

    def json(self) -> dict[str, object]:
        """As a line of JSON."""
        found = self.answer or api.ArchiveRunResponse()
        counts = {"events": found.events, "journalBytes": found.journal_bytes, "archiveBytes": found.archive_bytes}
        return {"runId": self.run_id, "archived": self.answer is not None, **counts}


def seconds_of(age: str) -> int:
    """Seconds of "30d", "12h" and the like; InvalidArgument names the option."""
    found = re.fullmatch(r"(\d+)([smhdw])", age)
    if found is None:
        problem = f"{age!r} is no age: write a number and s, m, h, d or w, as in 30d"
        raise InvalidArgument(Violation("--older-than", problem))
    return int(found[1]) * _UNITS[found[2]]


def seqs_of(given: str) -> list[int]:
    """Sequence numbers of "3,7,10-12"; InvalidArgument names the option."""
    numbers = list[int]()
    for part in filter(None, given.split(",")):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if found is None or int(found[2] or found[1]) < int(found[1]):
            raise InvalidArgument(Violation("--events", f"{part!r} is no event: write 3,7 or 10-12"))
        numbers += range(int(found[1]), int(found[2] or found[1]) + 1)
    return numbers


async def ended_before(services: Services, before_ms: int) -> AsyncGenerator[str]:
    """Runs of the tenant that ended before a moment, newest first."""
    token = ""
    while True:
        asked = api.ListRunsRequest(phases=_ENDED, page_size=1000, page_token=token)
        page = await services.runs.ListRuns(asked)
        for run in page.runs:
            if run.finish_time.ToMilliseconds() < before_ms:
                yield run.run_id
        token = page.next_page_token
        if not token:
            return


async def archived(services: Services, run_id: str, *, dry_run: bool) -> Moved:
    """Archives a run, unless it is only to be told."""
    if dry_run:
        return Moved(run_id, None)
    return Moved(run_id, await services.runs.ArchiveRun(api.ArchiveRunRequest(run_id=run_id), timeout=600.0))


def erasure_row(erasure: api.Erasure) -> tuple[str, ...]:
    """An erasure as a line of a table."""
    events = "all" if erasure.all else ",".join(map(str, erasure.seqs))
    rid = "rid of it" if erasure.scrubbed else "not yet"
    return when(erasure.time), erasure.run_id, events, erasure.actor, erasure.reason, rid
