"""Decisions that runs recorded in their journals."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from control.journal import Journal, RunQuery
from skyagent.policy.v1.decision_pb2 import Decision
from skyagent.run.v1.event_pb2 import EventBody

_KIND = EventBody.DESCRIPTOR.fields_by_name["policy_decided"].number
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision, and the number of the event that tells of it."""

    seq: int
    decision: Decision


class Decisions:
    """Reads journals; erased decisions are left out."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def of_run(self, tenant: str, run_id: str, *, after_seq: int = 0, limit: int) -> list[Recorded]:
        """At most so many decisions of one run, in order. Raises RunNotFound."""
        await self._journal.head(run_id, tenant=tenant)
        return await self._first(run_id, after_seq, limit)

    async def recorded(self, tenant: str, *, run_id: str, limit: int) -> list[Decision]:
        """At most so many decisions of one run, or, without one, of the tenant's newest runs."""
        if run_id:
            return [one.decision for one in await self.of_run(tenant, run_id, limit=limit)]
        found: list[Decision] = []
        async for newest in self._runs(tenant):
            found += [one.decision for one in await self._first(newest, 0, limit - len(found))]
            if len(found) >= limit:
                break
        return found

    async def _runs(self, tenant: str) -> AsyncGenerator[str]:
        token = ""
        while True:
            page = await self._journal.runs(RunQuery(tenant=tenant, page_token=token))
            for listing in page.runs:
                yield listing.head.run_id
            token = page.next_page_token
            if not token:
                return

    async def _first(self, run_id: str, after_seq: int, limit: int) -> list[Recorded]:
        found: list[Recorded] = []
        async with aclosing(self._read(run_id, after_seq)) as decisions:
            async for one in decisions:
                found.append(one)
                if len(found) >= limit:
                    break
        return found

    async def _read(self, run_id: str, after_seq: int) -> AsyncGenerator[Recorded]:
        seen = after_seq
        while events := await self._journal.read(run_id, after_seq=seen, limit=_PAGE):
            for event in events:
                if event.kind == _KIND and event.payload is not None:
                    yield Recorded(event.seq, EventBody.FromString(event.payload).policy_decided.decision)
            seen = events[-1].seq
