"""RunService."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import grpc

from control.core.steering import answer
from control.core.summary import state_digest
from control.journal import Erasure, ErasureQuery, Journal, StoredEvent
from control.journal.folding import event_of, folded_run, hash_of
from control.mission_api.comparing import Comparing
from control.mission_api.forks import Forks
from control.mission_api.missions import Missions
from control.mission_api.resolving import Resolving
from control.mission_api.retention import Retention
from control.mission_api.runs import Runs
from control.mission_api.watching import Watch
from infra.auth import caller
from infra.clock import Clock
from infra.errors import InvalidArgument, Violation
from infra.metrics.series import Count
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import run_service_pb2 as pb
from skyagent.run.v1 import run_service_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[object, object]

_PAGE = 200
_PAGE_BYTES = 2 * 1024 * 1024
"""A page ends once it is so large: clients of gRPC take messages of 4 MiB unless they are told otherwise."""


class RunServicer(rpc.RunServiceServicer):
    """Translates; the journal and the fold say what is so."""

    def __init__(
        self,
        journal: Journal,
        runs: Runs,
        missions: Missions,
        clock: Clock,
        draining: asyncio.Event,
        watchers: Count,
        retention: Retention,
    ) -> None:
        self._watchers = watchers
        self._retention = retention
        self._journal = journal
        self._runs = runs
        self._resolving = Resolving(journal, runs)
        self._missions = missions
        self._clock = clock
        self._draining = draining
        self._comparing = Comparing(journal, missions.preparation)

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        run_id = await self._missions.start_run(request.mission_id, request.request_id, request.actor)
        return pb.StartRunResponse(run=await self._runs.summary(run_id, caller().tenant))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        found = await folded_run(self._journal, request.run_id, tenant=caller().tenant)
        state = found.folded.state
        return pb.GetRunResponse(run=state, state_digest=state_digest(state), head_hash=hash_of(found.head.head_hash))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        return await self._runs.page(request, caller().tenant)

    async def WatchRun(  # pyright: ignore[reportIncompatibleMethodOverride]  # grpc.aio also takes one that writes
        self, request: pb.WatchRunRequest, context: grpc.aio.ServicerContext[pb.WatchRunRequest, pb.WatchRunResponse]
    ) -> None:
        run_id, tenant = request.run_id, caller().tenant
        watch = Watch(
            self._journal, self._clock, self._draining, run_id, tenant, request.after_seq, watchers=self._watchers
        )
        await watch.send_all(context.write)

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> pb.ListEventsResponse:
        head = await self._journal.head(request.run_id, tenant=caller().tenant)
        page = await self._journal.read(request.run_id, after_seq=request.after_seq, limit=request.page_size or _PAGE)
        events = [event_of(stored) for stored in _fitting(page)]
        seen = events[-1].seq if events else 0
        return pb.ListEventsResponse(events=events, head_seq=max(head.head_seq, seen))

    async def PauseRun(self, request: pb.PauseRunRequest, context: Context) -> pb.PauseRunResponse:
        command = cmd.Command(pause=cmd.PauseCommand(reason=request.reason))
        return pb.PauseRunResponse(run=await self._told(request.run_id, command, request.request_id))

    async def ResumeRun(self, request: pb.ResumeRunRequest, context: Context) -> pb.ResumeRunResponse:
        command = cmd.Command(resume=cmd.ResumeCommand())
        return pb.ResumeRunResponse(run=await self._told(request.run_id, command, request.request_id))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        grace = request.grace if request.HasField("grace") else None
        command = cmd.Command(cancel=cmd.CancelCommand(reason=request.reason, grace=grace))
        return pb.CancelRunResponse(run=await self._told(request.run_id, command, request.request_id))

    async def SteerRun(self, request: pb.SteerRunRequest, context: Context) -> pb.SteerRunResponse:
        if not request.message.strip() and not request.goal.strip():
            raise InvalidArgument(Violation("message", "say something, or give another goal"))
        command = cmd.Command(steer=cmd.SteerCommand(message=request.message, goal=request.goal))
        told = await self._told(request.run_id, command, request.request_id)
        state = (await folded_run(self._journal, request.run_id)).folded.state
        return pb.SteerRunResponse(run=told, note=answer(state.spec).note)

    async def AdjustRun(self, request: pb.AdjustRunRequest, context: Context) -> pb.AdjustRunResponse:
        if request.HasField("deadline"):
            command = cmd.Command(deadline=cmd.DeadlineCommand(deadline=request.deadline))
        elif request.HasField("retry"):
            command = cmd.Command(retry=request.retry)
        else:
            command = cmd.Command(priority=cmd.PriorityCommand(priority=request.priority))
        return pb.AdjustRunResponse(run=await self._told(request.run_id, command, request.request_id))

    async def ResolveStep(self, request: pb.ResolveStepRequest, context: Context) -> pb.ResolveStepResponse:
        resolve = cmd.ResolveCommand(step_id=request.step_id, effect=request.effect, note=request.note)
        told = await self._resolving.resolve(request.run_id, resolve, caller(), request.request_id)
        return pb.ResolveStepResponse(run=told)

    async def ListInbox(self, request: pb.ListInboxRequest, context: Context) -> pb.ListInboxResponse:
        return await self._runs.inbox(request, caller().tenant)

    async def ArchiveRun(self, request: pb.ArchiveRunRequest, context: Context) -> pb.ArchiveRunResponse:
        done = await self._retention.archive(request.run_id, caller())
        return pb.ArchiveRunResponse(
            events=done.events, journal_bytes=done.journal_bytes, archive_bytes=done.archive_bytes
        )

    async def EraseRun(self, request: pb.EraseRunRequest, context: Context) -> pb.EraseRunResponse:
        if request.all == bool(request.seqs):
            raise InvalidArgument(Violation("seqs", "name the events to erase, or set `all`, and not both"))
        head = await self._journal.head(request.run_id, tenant=caller().tenant)
        if beyond := [seq for seq in request.seqs if seq > head.head_seq]:
            told = f"run {request.run_id} has no event {beyond[0]}: its last one is {head.head_seq}"
            raise InvalidArgument(Violation("seqs", told))
        erasure = await self._retention.erase(request.run_id, request.seqs, request.reason, caller())
        return pb.EraseRunResponse(erasure=_erasure(erasure))

    async def ListErasures(self, request: pb.ListErasuresRequest, context: Context) -> pb.ListErasuresResponse:
        query = ErasureQuery(caller().tenant, request.run_id, request.page_size, request.page_token)
        page = await self._journal.erasures(query)
        return pb.ListErasuresResponse(erasures=map(_erasure, page.erasures), next_page_token=page.next_page_token)

    async def VerifyRun(self, request: pb.VerifyRunRequest, context: Context) -> pb.VerifyRunResponse:
        head = await self._journal.head(request.run_id, tenant=caller().tenant)
        found = await self._journal.verify(request.run_id)
        return pb.VerifyRunResponse(
            intact=found.bad_seq is None,
            first_bad_seq=found.bad_seq or 0,
            detail=found.reason,
            events=found.events,
            head_hash=hash_of(head.head_hash),
        )

    async def ForkRun(self, request: pb.ForkRunRequest, context: Context) -> pb.ForkRunResponse:
        forks = Forks(self._journal, self._missions, self._runs)
        forked = await forks.fork(request, caller())
        run = await self._runs.summary(forked.run_id, caller().tenant)
        return pb.ForkRunResponse(run=run, parent=forked.parent, notes=forked.notes)

    async def ReplayRun(self, request: pb.ReplayRunRequest, context: Context) -> pb.ReplayRunResponse:
        return await self._comparing.replay(request.run_id, caller().tenant)

    async def DiffRuns(self, request: pb.DiffRunsRequest, context: Context) -> pb.DiffRunsResponse:
        return await self._comparing.diff(request.run_id, request.other_run_id, caller().tenant)

    async def _told(self, run_id: str, command: cmd.Command, request_id: str) -> pb.RunSummary:
        return await self._runs.command(run_id, command, caller(), request_id)


def _fitting(page: Iterable[StoredEvent]) -> Iterator[StoredEvent]:
    """The first of a page, as many as a message carries; always one."""
    room = _PAGE_BYTES
    for event in page:
        size = len(event.payload or b"")
        if size > room < _PAGE_BYTES:
            return
        yield event
        room -= size


def _erasure(erasure: Erasure) -> pb.Erasure:
    shown = pb.Erasure(
        erasure_id=erasure.erasure_id,
        run_id=erasure.run_id,
        mission_id=erasure.mission_id,
        seqs=erasure.seqs,
        all=erasure.all,
        actor=erasure.actor,
        reason=erasure.reason,
        scrubbed=erasure.scrubbed,
    )
    shown.time.FromMilliseconds(erasure.time_ms)
    return shown
