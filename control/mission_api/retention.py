"""What becomes of runs that have ended: archived when they are old, erased when somebody who may asks for it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from control.agentfs import AgentFs
from control.agentfs.rows import artifact_digests, drop_erased, given_digests
from control.journal import Archived, Erase, Erasure, Journal
from control.mission_api.store import erase_spec, specs
from infra.auth import Caller
from infra.clock import Clock
from infra.errors import SkyError
from infra.ids import Ids
from infra.log import event_logger
from infra.metrics import Metrics
from infra.metrics import catalogue as known
from infra.settings import RetentionSettings

DAY_MS = 86_400_000

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """Archives and erases through the journal, and everything that this service keeps of a run."""

    journal: Journal
    agentfs: AgentFs
    clock: Clock
    ids: Ids
    settings: RetentionSettings
    metrics: Metrics

    async def run(self) -> None:
        """Archives what is old enough, and finishes what erasing has left, until cancelled."""
        while True:
            await self.one_pass()
            await self.clock.sleep(self.settings.every)

    async def one_pass(self) -> None:
        """Some of it; one that fails is told and tried again by the next pass."""
        try:
            await self.scrub()
            if self.settings.archive_after_days is not None:
                before_ms = self.clock.now_ms() - round(self.settings.archive_after_days * DAY_MS)
                for run_id in await self.journal.archivable(before_ms=before_ms, limit=self.settings.at_once):
                    await self._archive_old(run_id)
        except SkyError as error:
            log.warning("retention.postponed", error=error)

    async def archive(self, run_id: str, who: Caller) -> Archived:
        """Raises RunNotFound or RunNotEnded."""
        await self.journal.head(run_id, tenant=who.tenant)
        archived = await self.journal.archive(run_id)
        self.metrics.count(known.RUNS_ARCHIVED).add()
        log.info("run.archived", run_id=run_id, events=archived.events, archive_bytes=archived.archive_bytes)
        return archived

    async def erase(self, run_id: str, seqs: Sequence[int], reason: str, who: Caller) -> Erasure:
        """Erases what events say; no `seqs` means all. Raises RunNotFound, RunNotEnded or RunHasForks."""
        asked = Erase(self.ids.ulid(), run_id, who.tenant, tuple(sorted({*seqs})), who.subject, reason)

        def also(connection: sa.Connection, erasure: Erasure, payloads: Sequence[bytes]) -> None:
            drop_erased(connection, erasure.run_id, payloads)
            erase_spec(connection, erasure)

        erasure = await self.journal.erase(asked, also=also)
        self.metrics.count(known.RUNS_ERASED).add()
        log.info("run.erased", run_id=run_id, erasure_id=erasure.erasure_id, actor=who.subject)
        await self.scrub()
        return await self.journal.erasure(run_id) or erasure

    async def scrub(self) -> None:
        """Removes from files and free pages what erasures have left; what cannot be removed now is left to a pass."""
        left = await self.journal.unscrubbed()
        if not left:
            return
        for erasure in left:
            await self.agentfs.hide(erasure.run_id)
        tenants = {erasure.tenant for erasure in left}
        scrubbed = await self.journal.scrub(left, named=partial(_named, tenants=tenants))
        if scrubbed.removed:
            await self.agentfs.forget(scrubbed.removed)
        if not scrubbed.done:
            log.info("retention.scrub_waits", erasures=len(left))

    async def _archive_old(self, run_id: str) -> None:
        try:
            await self.journal.archive(run_id)
            self.metrics.count(known.RUNS_ARCHIVED).add()
        except SkyError as error:  # one that is damaged must not keep the others
            log.warning("run.not_archived", run_id=run_id, error=error)


def _named(connection: sa.Connection, tenants: Collection[str]) -> Iterator[bytes]:
    """What else names bytes; what these tenants gave themselves goes with the run that it was for."""
    yield from specs(connection)
    yield from artifact_digests(connection)
    yield from given_digests(connection, besides=tenants)
