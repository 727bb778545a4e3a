"""Runs behind the services: starting, showing and commanding them through the journal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from sqlalchemy import Executable

from control.core.inbox import items, waits
from control.core.run import FOLD_VERSION, RunFold
from control.journal import Command, EventDraft, Journal, NewRun, RunHead, RunListing, RunQuery
from control.journal.folding import folded_run, projection
from control.mission_api.store import MissionRow, with_run
from infra.auth import Caller
from infra.clock import Clock
from infra.errors import AlreadyExists
from infra.ids import Ids
from skyagent.mission.v1.mission_pb2 import MissionSpec
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1.run_service_pb2 import (
    ListInboxRequest,
    ListInboxResponse,
    ListRunsRequest,
    ListRunsResponse,
    RunSummary,
)

_STOPPABLE = frozenset({ev.RUN_PHASE_QUEUED, ev.RUN_PHASE_RUNNING, ev.RUN_PHASE_WAITING})
_ENDED = frozenset({ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED, ev.RUN_PHASE_CANCELLED})
_FORESEEN = MappingProxyType({"pause": ev.RUN_PHASE_PAUSING, "cancel": ev.RUN_PHASE_CANCELLING})


@dataclass(frozen=True, slots=True)
class Start:
    """A run to start: of which mission, by whom, under which template version."""

    mission: MissionRow
    actor: str
    template_version: int
    request_id: str | None
    draws: tuple[ev.Draw, ...] = ()
    """The budgets that it draws from."""


@dataclass(frozen=True, slots=True)
class Runs:
    """Everything that mission-api does with runs."""

    journal: Journal
    clock: Clock
    ids: Ids

    async def start(self, start: Start, *, also: Sequence[Executable] = ()) -> RunHead:
        """Create a run in one transaction with its mission's row; a known request_id returns the run that exists.

        Raises:
            AlreadyExists: when the request_id started a run of another mission.
        """
        mission, run_id, now_ms = start.mission, self.ids.ulid(), self.clock.now_ms()
        created = ev.RunCreated(
            mission_id=mission.mission_id,
            tenant=mission.tenant,
            spec=MissionSpec.FromString(mission.spec),
            actor=start.actor,
            template_version=start.template_version,
            fold_version=FOLD_VERSION,
            ordinal=mission.run_count + 1,
        )
        bodies = [ev.EventBody(run_created=created), *budgeted(start.draws)]
        folded = RunFold()
        for seq, body in enumerate(bodies, 1):
            event = ev.RunEvent(run_id=run_id, seq=seq, body=body)
            event.time.FromMilliseconds(now_ms)
            folded.apply(event)
        new = NewRun(
            run_id=run_id,
            mission_id=mission.mission_id,
            tenant=mission.tenant,
            fold_version=FOLD_VERSION,
            events=tuple(EventDraft.of(body) for body in bodies),
            append_id=self.ids.ulid(),
            request_id=start.request_id,
            projection=projection(folded),
            time_ms=now_ms,
        )
        return await self.journal.create_run(new, also=(*also, with_run(mission.mission_id, run_id)))

    async def summary(self, run_id: str, tenant: str) -> RunSummary:
        """A run as lists show it. Raises RunNotFound."""
        return await self._shown(await self.journal.listing(run_id, tenant=tenant))

    async def page(self, request: ListRunsRequest, tenant: str) -> ListRunsResponse:
        """Runs, newest first."""
        query = RunQuery(
            tenant=tenant,
            mission_id=request.mission_id or None,
            states=tuple(ev.RunPhase.Name(phase) for phase in request.phases),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        page = await self.journal.runs(query)
        runs = [await self._shown(listing) for listing in page.runs]
        return ListRunsResponse(runs=runs, next_page_token=page.next_page_token)

    async def inbox(self, request: ListInboxRequest, tenant: str) -> ListInboxResponse:
        """What waits for a person, over the runs that have not ended, newest run first."""
        query = RunQuery(tenant=tenant, unended=True, page_size=request.page_size, page_token=request.page_token)
        page = await self.journal.runs(query)
        waiting = [listing.head.run_id for listing in page.runs if waits(await self._shown(listing))]
        folded = [(await folded_run(self.journal, run_id)).folded for run_id in waiting]
        found = [item for each in folded for item in items(each)]
        return ListInboxResponse(items=found, next_page_token=page.next_page_token)

    async def unended(self, mission_id: str, tenant: str) -> Iterable[str]:
        """Ids of a mission's runs that have not ended."""
        token, found = "", list[str]()
        while True:
            query = RunQuery(tenant=tenant, mission_id=mission_id, page_size=1000, page_token=token)
            page = await self.journal.runs(query)
            found += [listing.head.run_id for listing in page.runs if not listing.head.terminal]
            token = page.next_page_token
            if not token:
                return found

    async def command(self, run_id: str, command: cmd.Command, who: Caller, request_id: str) -> RunSummary:
        """Tell a run something; durable when it returns. Raises RunNotFound, RunEnded or IdReused."""
        kind = command.WhichOneof("kind") or ""
        await self.journal.command(
            Command(
                cmd_id=request_id or self.ids.uuid(),
                run_id=run_id,
                tenant=who.tenant,
                kind=kind.upper(),
                actor=who.subject,
                payload=command.SerializeToString(deterministic=True),
            )
        )
        return _foreseen(kind, await self.summary(run_id, who.tenant))

    async def _shown(self, listing: RunListing) -> RunSummary:
        """From its projection; one that was dropped is made again."""
        if listing.projection is not None:
            return RunSummary.FromString(listing.projection.body)
        found = await folded_run(self.journal, listing.head.run_id)
        made = projection(found.folded)
        await self.journal.save_projection(listing.head.run_id, found.head.head_seq, made)
        return RunSummary.FromString(made.body)


def budgeted(draws: Sequence[ev.Draw]) -> Sequence[ev.EventBody]:
    """Says that a new run draws from budgets; nothing when it draws from none."""
    return (ev.EventBody(run_budgeted=ev.RunBudgeted(draws=draws)),) if draws else ()


def same_mission(head: RunHead, mission_id: str) -> None:
    """Refuse a request_id that started a run of another mission."""
    if head.mission_id != mission_id:
        raise AlreadyExists(
            "REQUEST_ID_REUSED", f"this request_id started run {head.run_id} of another mission: make a new one"
        )


def _foreseen(kind: str, summary: RunSummary) -> RunSummary:
    """From the commit of the command on nothing starts, whether or not the run's owner has written it down already."""
    if kind in _FORESEEN and (summary.phase in _STOPPABLE or (kind == "cancel" and summary.phase not in _ENDED)):
        summary.phase = _FORESEEN[kind]
    return summary
