"""What people do with schedules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from control.core.times import Never, When, delay_of, due_after
from control.core.turn import Cause, Firing, State
from control.scheduler.checking import Asked, checked, due_in_range, same_times
from control.scheduler.firings import FiringStore, ToStart, startable
from control.scheduler.loop import Scheduler
from control.scheduler.missions import Missions
from control.scheduler.row import ScheduleRow, StoredFiring, ms_of, when_of
from control.scheduler.store import Change, Replaced, ScheduleStore
from infra.auth import caller
from infra.clock import Clock
from infra.digest import digest_message
from infra.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, Precondition, Violation
from infra.ids import Ids, derived_uuid
from skyagent.schedule.v1 import schedule_service_pb2 as pb

_TRIES = 5
"""Changes that met a turn of the schedule are tried again so often."""


@dataclass(frozen=True, slots=True)
class Schedules:
    """Schedules of a tenant."""

    store: ScheduleStore
    firings: FiringStore
    missions: Missions
    scheduler: Scheduler
    clock: Clock
    ids: Ids

    async def create(self, request: pb.CreateScheduleRequest) -> pb.Schedule:
        """Raises InvalidArgument for what can never run, AlreadyExists for a request_id of another schedule."""
        who, digest = caller(), digest_message(request.schedule)
        known = await self.store.by_request(who.tenant, request.request_id)
        if known is not None:
            return await self._shown(_same_request(known, digest))
        now_ms, schedule_id = self.clock.now_ms(), self.ids.ulid()
        asked = checked(request.schedule, now_ms)
        await self._require_missions(asked, who.tenant)
        origin = derived_uuid("schedule", who.tenant, request.request_id or schedule_id)
        mission_id = await self.missions.create(
            asked.body.spec, tenant=who.tenant, actor=who.subject, request_id=origin
        )
        next_ms, wake_ms = _times(asked.when, ms_of(asked.body.jitter), schedule_id, now_ms)
        row = ScheduleRow(
            schedule_id=schedule_id,
            tenant=who.tenant,
            creator=who.subject,
            body=asked.body.SerializeToString(deterministic=True),
            mission_id=mission_id,
            request_id=request.request_id or None,
            request_digest=digest,
            created_ms=now_ms,
            anchor_ms=now_ms,
            paused=request.schedule.paused,
            next_ms=next_ms,
            wake_ms=None if request.schedule.paused else wake_ms,
        )
        return await self._shown(_same_request(await self.store.create(row, asked.upstream), digest))

    async def get(self, schedule_id: str) -> ScheduleRow:
        """Raises NotFound, also for another tenant's."""
        row = await self.store.get(caller().tenant, schedule_id)
        if row is None:
            raise NotFound(
                "SCHEDULE_NOT_FOUND",
                f"schedule {schedule_id!r} does not exist; list schedules with `skyagent schedules ls`",
                schedule_id=schedule_id,
            )
        return row

    async def show(self, schedule_id: str) -> pb.Schedule:
        """A schedule as clients see it."""
        return await self._shown(await self.get(schedule_id))

    async def page(self, page_size: int, page_token: str) -> pb.ListSchedulesResponse:
        """Schedules, next due first."""
        page = await self.store.page(caller().tenant, page_size=page_size, page_token=page_token)
        upstream = await self.store.upstream([row.schedule_id for row in page.rows])
        shown = [_with(row.contract(), upstream.get(row.schedule_id, ())) for row in page.rows]
        return pb.ListSchedulesResponse(schedules=shown, next_page_token=page.next_page_token)

    async def update(self, schedule_id: str, given: pb.Schedule) -> pb.Schedule:
        """Raises InvalidArgument, NotFound, or Conflict when it is changed all the time."""

        async def changed(row: ScheduleRow) -> Change:
            now_ms, before = self.clock.now_ms(), row.asked
            kept = same_times(before, given)
            asked = checked(given, 0 if kept else now_ms)
            await self._require_missions(asked, row.tenant)
            mission_id = await self._mission_of(row, asked)
            # Who says what is done does it in their own name.
            creator = row.creator if mission_id == row.mission_id else caller().subject
            body = asked.body.SerializeToString(deterministic=True)
            become = replace(row, body=body, mission_id=mission_id, creator=creator)
            if not kept:
                next_ms, wake_ms = _times(asked.when, ms_of(asked.body.jitter), schedule_id, now_ms)
                become = replace(become, anchor_ms=now_ms, next_ms=next_ms, wake_ms=None if row.paused else wake_ms)
            return Change(become, upstream=asked.upstream, replaced=Replaced(row.mission_id, mission_id))

        return await self._change(schedule_id, changed)

    async def pause(self, schedule_id: str) -> pb.Schedule:
        """Nothing of it starts any more, but for triggers."""

        async def changed(row: ScheduleRow) -> Change:
            return Change(replace(row, paused=True, wake_ms=None))

        return await self._change(schedule_id, changed)

    async def resume(self, schedule_id: str) -> pb.Schedule:
        """It goes on from now."""

        async def changed(row: ScheduleRow) -> Change:
            if not row.paused:
                return Change(row)
            now_ms, asked = self.clock.now_ms(), row.asked
            when = when_of(asked, row.anchor_ms)
            next_ms, wake_ms = _times(when, ms_of(asked.jitter), schedule_id, now_ms)
            anchor_ms = now_ms if isinstance(when, Never) else row.anchor_ms
            become = replace(row, paused=False, anchor_ms=anchor_ms, next_ms=next_ms, wake_ms=wake_ms)
            return Change(become, seen_ms=now_ms)

        return await self._change(schedule_id, changed)

    async def delete(self, schedule_id: str) -> None:
        """What waited to start does not start any more."""

        async def changed(row: ScheduleRow) -> Change:
            return Change(replace(row, deleted_ms=self.clock.now_ms(), next_ms=None, wake_ms=None))

        await self._change(schedule_id, changed)

    async def trigger(self, schedule_id: str, request_id: str) -> str:
        """The run that is started now. Raises what StartRun refuses; what only passes is tried again by itself."""
        row, occasion = await self.get(schedule_id), request_id or self.ids.uuid()
        known = await self.firings.occasion(schedule_id, occasion)
        if known is None:
            asked = Firing(self.clock.now_ms(), Cause.TRIGGER, State.STARTING, occasion)
            (known,) = await self.firings.ask_for(row, [asked], told=lambda: None)
        if known.firing.state is not State.STARTING:
            return _run_of(known)
        start = ToStart(schedule_id, row.tenant, row.creator, row.mission_id, known.firing, "")
        return await self.scheduler.starter.start(start)

    async def backfill(self, request: pb.BackfillScheduleRequest) -> pb.BackfillScheduleResponse:
        """Raises InvalidArgument for a range that is none, lies ahead, or has too many due times."""
        row = await self.get(request.schedule_id)
        when = when_of(row.asked, row.anchor_ms)
        if isinstance(when, Never):
            raise InvalidArgument(Violation("schedule_id", "it waits for other missions and has no times: trigger it"))
        times = due_in_range(when, request, self.clock.now_ms())
        asked = [Firing(due_ms, Cause.BACKFILL) for due_ms in times]
        before = {stored.firing.due_ms: stored for stored in await self.firings.at(row.schedule_id, asked)}
        wanted = [firing for firing in asked if startable(before.get(firing.due_ms))]
        if not request.dry_run:
            done = await self.firings.ask_for(row, asked, told=lambda: self.scheduler.look(row.schedule_id))
        else:
            fresh = {firing.due_ms: StoredFiring(row.schedule_id, firing) for firing in wanted}
            done = tuple(fresh.get(due_ms) or before[due_ms] for due_ms in times)
        return pb.BackfillScheduleResponse(firings=[one.contract() for one in done], waiting=len(wanted))

    async def due_times(self, schedule_id: str, count: int) -> pb.ListDueTimesResponse:
        """What is to come."""
        row = await self.get(schedule_id)
        asked = row.asked
        answer = pb.ListDueTimesResponse(time_zone=asked.time_zone or "UTC")
        from_ms = self.clock.now_ms() if row.paused or row.next_ms is None else row.next_ms - 1
        for due_ms in islice(when_of(asked, row.anchor_ms).after(from_ms), count):
            time = answer.due_times.add()
            time.due_time.FromMilliseconds(due_ms)
            time.start_time.FromMilliseconds(due_ms + delay_of(schedule_id, due_ms, ms_of(asked.jitter)))
        return answer

    async def _change(self, schedule_id: str, changed: Callable[[ScheduleRow], Awaitable[Change]]) -> pb.Schedule:
        for _ in range(_TRIES):
            change = await changed(await self.get(schedule_id))
            if await self.store.change(change):
                return await self._shown(change.row)
        raise Conflict("SCHEDULE_BUSY", f"schedule {schedule_id} changes all the time: try again")

    async def _mission_of(self, row: ScheduleRow, asked: Asked) -> str:
        """The mission of what is asked: the one there is, unless the spec is another."""
        if row.asked.spec == asked.body.spec:
            return row.mission_id
        request_id = derived_uuid("spec", row.schedule_id, str(row.turn), digest_message(asked.body.spec))
        return await self.missions.create(
            asked.body.spec, tenant=row.tenant, actor=caller().subject, request_id=request_id
        )

    async def _require_missions(self, asked: Asked, tenant: str) -> None:
        several = asked.body.HasField("after")
        missing = [
            Violation(
                f"schedule.after.mission_ids[{position}]" if several else "schedule.after_mission_id",
                f"there is no mission {mission_id!r}: `skyagent missions ls` and `skyagent schedules ls` show the ids",
            )
            for position, mission_id in enumerate(asked.upstream)
            if not await self.missions.exists(mission_id, tenant)
        ]
        if missing:
            raise InvalidArgument(*missing, reason="MISSION_NOT_FOUND")

    async def _shown(self, row: ScheduleRow) -> pb.Schedule:
        upstream = await self.store.upstream([row.schedule_id])
        return _with(row.contract(), upstream.get(row.schedule_id, ()))


def _times(when: When, jitter_ms: int, schedule_id: str, now_ms: int) -> tuple[int | None, int | None]:
    """The next due time, and the moment at which it is started."""
    next_ms = due_after(when, now_ms)
    return next_ms, None if next_ms is None else next_ms + delay_of(schedule_id, next_ms, jitter_ms)


def _with(shown: pb.Schedule, upstream: Sequence[str]) -> pb.Schedule:
    """The missions that it waits for now: when another schedule changed, they are others than were named."""
    if shown.HasField("after"):
        shown.after.mission_ids[:] = upstream
    elif shown.after_mission_id:
        shown.after_mission_id = upstream[0]
    return shown


def _run_of(known: StoredFiring) -> str:
    if known.firing.state is State.STARTED:
        return known.firing.run_id
    raise Precondition("FIRING_REFUSED", f"this trigger was refused: {known.firing.reason}; trigger it anew")


def _same_request(row: ScheduleRow, digest: str) -> ScheduleRow:
    if row.request_digest != digest:
        raise AlreadyExists(
            "REQUEST_ID_REUSED",
            f"this request_id created schedule {row.schedule_id} from another request: make a new one",
        )
    if row.deleted_ms is not None:
        raise NotFound("SCHEDULE_NOT_FOUND", f"schedule {row.schedule_id!r} was deleted", schedule_id=row.schedule_id)
    return row
