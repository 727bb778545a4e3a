"""Firings in SQL: how schedules stand, what a turn decided, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from control.core.turn import Cause, Firing, Standing, State, Success, Turn, Upstream, rest_ms
from control.journal import wake_topic
from control.journal.schema import run_projections, runs
from control.scheduler.row import CATCH_UPS, OVERLAPS, ScheduleRow, StoredFiring, ms_of, when_of
from control.scheduler.schema import firings, schedule_missions, schedules
from infra.db import Database, insert_into
from infra.errors import InvalidArgument, Violation
from skyagent.run.v1.event_pb2 import RUN_PHASE_SUCCEEDED, RunPhase
from skyagent.run.v1.run_service_pb2 import RunSummary

KEPT = 1_000
"""Firings of a schedule that are kept, besides those that wait."""
_SUCCEEDED = RunPhase.Name(RUN_PHASE_SUCCEEDED)
_OVERLAPPING_MS = 60_000
"""Two processes may commit two ends in another order than their clocks tell; so far back is looked once more."""
_PAGE = 200
_OPEN = (State.WAITING, State.STARTING)


@dataclass(frozen=True, slots=True)
class Seen:
    """A schedule at one moment: its row, and what its next turn is decided from."""

    row: ScheduleRow
    standing: Standing


@dataclass(frozen=True, slots=True)
class ToStart:
    """A firing whose start is decided: everything that StartRun needs, and which process decided it."""

    schedule_id: str
    tenant: str
    creator: str
    mission_id: str
    firing: Firing
    decided_by: str

    @property
    def key(self) -> tuple[str, int, str]:
        return (self.schedule_id, self.firing.due_ms, self.firing.occasion)


@dataclass(frozen=True, slots=True)
class FiringPage:
    """Some firings, and how to ask for the next ones; an empty token ends the list."""

    firings: tuple[StoredFiring, ...]
    next_page_token: str


class FiringStore:
    """All SQL about firings. `incarnation` names this process in what it decides."""

    def __init__(self, database: Database, incarnation: str) -> None:
        self._database = database
        self._incarnation = incarnation

    async def due(self, now_ms: int) -> frozenset[str]:
        """Schedules whose time to be looked at has come."""
        chosen = sa.select(schedules.c.schedule_id).where(schedules.c.wake_ms <= now_ms)
        return await self._ids(chosen)

    async def concerned(self, ids: Collection[str]) -> frozenset[str]:
        """Schedules with these ids, or that runs with these ids belong to or are waited for by."""
        touched = sa.select(runs.c.mission_id).where(runs.c.run_id.in_(ids))
        own = sa.select(schedules.c.schedule_id).where(
            sa.or_(schedules.c.schedule_id.in_(ids), schedules.c.mission_id.in_(touched))
        )
        waiting = sa.select(schedule_missions.c.schedule_id).where(schedule_missions.c.mission_id.in_(touched))
        return await self._ids(own.union(waiting))

    async def unsettled(self) -> frozenset[str]:
        """Schedules that wait for something else than their time."""
        waiting = sa.select(firings.c.schedule_id).where(firings.c.state == State.WAITING)
        return await self._ids(waiting.union(sa.select(schedule_missions.c.schedule_id)))

    async def next_wake(self) -> int | None:
        """When the first schedule is to be looked at."""
        first = sa.select(sa.func.min(schedules.c.wake_ms))
        return await self._database.read(lambda connection: connection.execute(first).scalar_one())

    async def seen(self, schedule_id: str) -> Seen | None:
        """How a schedule stands; nothing when it was deleted."""
        return await self._database.read(lambda connection: _seen(connection, schedule_id))

    async def take(self, seen: Seen, turn: Turn) -> bool:
        """Write a turn, unless somebody else had one since; whether it was written."""
        moved = (
            sa.update(schedules)
            .where(schedules.c.schedule_id == seen.row.schedule_id, schedules.c.turn == seen.row.turn)
            .where(schedules.c.deleted_ms.is_(None))
            .values(
                turn=schedules.c.turn + 1,
                next_ms=turn.next_ms,
                wake_ms=turn.wake_ms,
                skipped=schedules.c.skipped + sum(firing.state is State.SKIPPED for firing in turn.firings),
            )
        )

        def write(connection: sa.Connection) -> bool:
            if connection.execute(moved).rowcount != 1:
                return False
            self._put(connection, seen.row, turn.firings)
            for mission_id, success in turn.seen:
                connection.execute(_taken_up(seen.row.schedule_id, mission_id, success))
            if turn.firings:
                connection.execute(_forgotten(seen.row.schedule_id))
            return True

        return await self._database.transact(write)

    async def ask_for(
        self, row: ScheduleRow, asked: Sequence[Firing], *, told: Callable[[], None]
    ) -> tuple[StoredFiring, ...]:
        """Put firings that a person asked for, unless they had their run or are about to; what is there afterwards."""

        def write(connection: sa.Connection) -> tuple[StoredFiring, ...]:
            before = {stored.firing.due_ms: stored for stored in _at(connection, row.schedule_id, asked)}
            fresh = [firing for firing in asked if startable(before.get(firing.due_ms))]
            self._put(connection, row, fresh)
            return _at(connection, row.schedule_id, asked)

        return await self._database.transact(
            write, committed=lambda _: told(), topics=lambda _: (wake_topic(row.schedule_id),)
        )

    async def at(self, schedule_id: str, asked: Sequence[Firing]) -> tuple[StoredFiring, ...]:
        """What there is at the due times of these, in order."""
        return await self._database.read(lambda connection: _at(connection, schedule_id, asked))

    async def occasion(self, schedule_id: str, occasion: str) -> StoredFiring | None:
        """The firing of one occasion."""
        chosen = _listed().where(firings.c.schedule_id == schedule_id, firings.c.occasion == occasion)
        found = await self._database.read(lambda connection: connection.execute(chosen).mappings().all())
        return next((_stored(row) for row in found), None)

    async def to_start(self) -> tuple[ToStart, ...]:
        """Firings whose start is decided and not yet known to have happened, the earliest first."""
        chosen = (
            sa.select(firings, schedules.c.tenant, schedules.c.creator)
            .join(schedules, schedules.c.schedule_id == firings.c.schedule_id)
            .where(firings.c.state == State.STARTING)
            .order_by(firings.c.due_ms, firings.c.schedule_id)
            .limit(KEPT)
        )
        found = await self._database.read(lambda connection: connection.execute(chosen).mappings().all())
        return tuple(_to_start(row) for row in found)

    async def started(self, start: ToStart, run_id: str, now_ms: int) -> bool:
        """Write down the run of a firing; whether that was news."""
        settled = {"state": State.STARTED, "run_id": run_id, "started_ms": now_ms, "reason": ""}
        well = {"last_run_id": run_id, "refusals": 0, "rest_until_ms": 0, "refusal": ""}
        return await self._settle(start, settled, {**well, "started": schedules.c.started + 1})

    async def refused(self, start: ToStart, reason: str, now_ms: int) -> bool:
        """Write down that a run was refused, and let the schedule rest, longer each time; whether that was news."""

        def rested(row: sa.RowMapping) -> dict[str, object]:
            refusals = int(row["refusals"]) + 1
            until_ms = now_ms + rest_ms(refusals)
            return {"refusals": refusals, "rest_until_ms": until_ms, "refusal": reason, "refused": row["refused"] + 1}

        return await self._settle(start, {"state": State.REFUSED, "reason": reason}, rested)

    async def hindered(self, start: ToStart, reason: str) -> None:
        """Write down why a start has not happened yet."""
        noted = sa.update(firings).where(*_of(start), firings.c.state == State.STARTING).values(reason=reason)
        await self._database.transact(lambda connection: connection.execute(noted).close())

    async def page(self, schedule_id: str, *, states: Sequence[str], page_size: int, page_token: str) -> FiringPage:
        """Firings, the latest due first."""
        order = (firings.c.due_ms.desc(), firings.c.occasion.desc())
        chosen = _listed().where(firings.c.schedule_id == schedule_id).order_by(*order).limit(page_size + 1)
        if states:
            chosen = chosen.where(firings.c.state.in_(states))
        if page_token:
            due_ms, occasion = _position(page_token)
            same = sa.and_(firings.c.due_ms == due_ms, firings.c.occasion < occasion)
            chosen = chosen.where(sa.or_(firings.c.due_ms < due_ms, same))
        rows = await self._database.read(lambda connection: connection.execute(chosen).mappings().all())
        shown = tuple(_stored(row) for row in rows[:page_size])
        last = shown[-1].firing if len(rows) > page_size else None
        return FiringPage(shown, f"{last.due_ms}|{last.occasion}" if last else "")

    async def _ids(self, chosen: sa.Select[tuple[str]] | sa.CompoundSelect[tuple[str]]) -> frozenset[str]:
        rows = await self._database.read(lambda connection: connection.execute(chosen).all())
        return frozenset(str(row[0]) for row in rows)

    async def _settle(
        self,
        start: ToStart,
        settled: Mapping[str, object],
        schedule: Mapping[str, object] | Callable[[sa.RowMapping], Mapping[str, object]],
    ) -> bool:
        once = sa.update(firings).where(*_of(start), firings.c.state == State.STARTING).values(dict(settled))
        chosen = sa.select(schedules).where(schedules.c.schedule_id == start.schedule_id).with_for_update()

        def write(connection: sa.Connection) -> bool:
            row = connection.execute(chosen).mappings().one()
            if connection.execute(once).rowcount != 1:
                return False
            values = schedule(row) if callable(schedule) else schedule
            changed = sa.update(schedules).where(schedules.c.schedule_id == start.schedule_id)
            # Whoever is deciding meanwhile has to look again.
            connection.execute(changed.values({**values, "turn": schedules.c.turn + 1}))
            return True

        return await self._database.transact(write)

    def _put(self, connection: sa.Connection, row: ScheduleRow, decided: Sequence[Firing]) -> None:
        values = [
            {
                "schedule_id": row.schedule_id,
                "due_ms": firing.due_ms,
                "occasion": firing.occasion,
                "cause": firing.cause,
                "state": firing.state,
                "reason": firing.reason,
                "mission_id": row.mission_id,
                "run_id": firing.run_id,
                "decided_by": self._incarnation,
                "through_ms": firing.through_ms,
            }
            for firing in decided
        ]
        if not values:
            return
        put = insert_into(connection, firings)
        changed = {name: put.excluded[name] for name in ("cause", "state", "reason", "mission_id", "decided_by")}
        unsettled = sa.and_(firings.c.state != State.STARTING, firings.c.state != State.STARTED)
        key = [firings.c.schedule_id, firings.c.due_ms, firings.c.occasion]
        # Once its start is decided, a firing is settled by that start alone.
        connection.execute(put.on_conflict_do_update(index_elements=key, set_=changed, where=unsettled), values)


def startable(stored: StoredFiring | None) -> bool:
    """Whether a due time has no run and is not about to have one."""
    return stored is None or stored.firing.state in (State.SKIPPED, State.REFUSED)


def _seen(connection: sa.Connection, schedule_id: str) -> Seen | None:
    chosen = sa.select(schedules).where(schedules.c.schedule_id == schedule_id, schedules.c.deleted_ms.is_(None))
    found = connection.execute(chosen).mappings().one_or_none()
    if found is None:
        return None
    row = ScheduleRow(**found)
    asked = row.asked
    opened = [_firing(one) for one in connection.execute(_open_of(schedule_id)).mappings()]
    standing = Standing(
        schedule_id=schedule_id,
        when=when_of(asked, row.anchor_ms),
        overlap=OVERLAPS[asked.overlap],
        catch_up=CATCH_UPS[asked.catch_up],
        catch_up_limit=asked.catch_up_limit,
        jitter_ms=ms_of(asked.jitter),
        paused=row.paused,
        next_ms=row.next_ms,
        rest_until_ms=row.rest_until_ms,
        refusal=row.refusal,
        waiting=tuple(firing for firing in opened if firing.state is State.WAITING),
        starting=any(firing.state is State.STARTING for firing in opened),
        under_way=_under_way(connection, row),
        upstream=tuple(_upstream(connection, row)),
    )
    return Seen(row, standing)


def _open_of(schedule_id: str) -> sa.Select[tuple[object, ...]]:
    mine = sa.select(firings).where(firings.c.schedule_id == schedule_id, firings.c.state.in_(_OPEN))
    return mine.order_by(firings.c.due_ms, firings.c.occasion)


def _under_way(connection: sa.Connection, row: ScheduleRow) -> tuple[str, ...]:
    """Runs of its mission that have not ended, and its latest one, which may be of the mission before."""
    mine = sa.or_(runs.c.mission_id == row.mission_id, runs.c.run_id == row.last_run_id)
    chosen = sa.select(runs.c.run_id).where(runs.c.tenant == row.tenant, mine, runs.c.terminal == sa.false())
    return tuple(connection.execute(chosen.order_by(runs.c.run_id)).scalars())


def _upstream(connection: sa.Connection, row: ScheduleRow) -> Sequence[Upstream]:
    waited = sa.select(schedule_missions).where(schedule_missions.c.schedule_id == row.schedule_id)
    rows = connection.execute(waited.order_by(schedule_missions.c.position)).all()
    several = len(rows) > 1
    found: list[Upstream] = []
    for one in rows:
        since_ms = one.seen_ms if several else max(row.anchor_ms, one.seen_ms - _OVERLAPPING_MS)
        fresh = _successes(connection, row.tenant, one.mission_id, since_ms)
        if not several:
            known = _taken(connection, row.schedule_id, [success.run_id for success in fresh])
            fresh = [success for success in fresh if success.run_id not in known]
        found.append(Upstream(one.mission_id, tuple(fresh)))
    return found


def _successes(connection: sa.Connection, tenant: str, mission_id: str, since_ms: int) -> list[Success]:
    """Runs that succeeded after a moment, the earliest first; the search ends where a whole page has none."""
    chosen = (
        sa.select(runs.c.run_id, run_projections.c.body)
        .join(run_projections, run_projections.c.run_id == runs.c.run_id)
        .where(runs.c.tenant == tenant, runs.c.mission_id == mission_id, run_projections.c.state == _SUCCEEDED)
        .order_by(runs.c.run_id.desc())
        .limit(_PAGE)
    )
    found: list[Success] = []
    last = ""
    while True:
        page = connection.execute(chosen.where(runs.c.run_id < last) if last else chosen).all()
        fresh = [success for row in page if (success := _success(row.run_id, row.body)).finish_ms > since_ms]
        found += fresh
        if len(page) < _PAGE or not fresh:
            return sorted(found, key=lambda success: (success.finish_ms, success.run_id))
        last = page[-1].run_id


def _success(run_id: str, body: bytes) -> Success:
    return Success(RunSummary.FromString(body).finish_time.ToMilliseconds(), run_id)


def _taken(connection: sa.Connection, schedule_id: str, run_ids: Sequence[str]) -> frozenset[str]:
    mine = firings.c.schedule_id == schedule_id
    chosen = sa.select(firings.c.occasion).where(mine, firings.c.occasion.in_(run_ids))
    return frozenset(connection.execute(chosen).scalars())


def _taken_up(schedule_id: str, mission_id: str, success: Success) -> sa.Executable:
    return (
        sa.update(schedule_missions)
        .where(schedule_missions.c.schedule_id == schedule_id, schedule_missions.c.mission_id == mission_id)
        .values(seen_ms=success.finish_ms, seen_run_id=success.run_id)
    )


def _forgotten(schedule_id: str) -> sa.Executable:
    """Drops what is older than the latest firings that are kept."""
    mine = firings.c.schedule_id == schedule_id
    oldest = sa.select(firings.c.due_ms).where(mine).order_by(firings.c.due_ms.desc()).offset(KEPT).limit(1)
    return sa.delete(firings).where(mine, firings.c.due_ms <= oldest.scalar_subquery(), firings.c.state.not_in(_OPEN))


def _at(connection: sa.Connection, schedule_id: str, asked: Sequence[Firing]) -> tuple[StoredFiring, ...]:
    times = [firing.due_ms for firing in asked]
    chosen = _listed().where(firings.c.schedule_id == schedule_id, firings.c.due_ms.in_(times))
    occasions = {(firing.due_ms, firing.occasion) for firing in asked}
    found = (_stored(row) for row in connection.execute(chosen.order_by(firings.c.due_ms)).mappings())
    return tuple(one for one in found if (one.firing.due_ms, one.firing.occasion) in occasions)


def _listed() -> sa.Select[tuple[object, ...]]:
    phase = run_projections.c.state.label("run_phase")
    return sa.select(firings, phase).outerjoin(run_projections, run_projections.c.run_id == firings.c.run_id)


def _of(start: ToStart) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        firings.c.schedule_id == start.schedule_id,
        firings.c.due_ms == start.firing.due_ms,
        firings.c.occasion == start.firing.occasion,
    )


def _firing(row: sa.RowMapping) -> Firing:
    return Firing(
        due_ms=row["due_ms"],
        cause=Cause(row["cause"]),
        state=State(row["state"]),
        occasion=row["occasion"],
        reason=row["reason"],
        run_id=row["run_id"],
        through_ms=row["through_ms"],
    )


def _to_start(row: sa.RowMapping) -> ToStart:
    return ToStart(
        schedule_id=row["schedule_id"],
        tenant=row["tenant"],
        creator=row["creator"],
        mission_id=row["mission_id"],
        firing=_firing(row),
        decided_by=row["decided_by"],
    )


def _stored(row: sa.RowMapping) -> StoredFiring:
    return StoredFiring(row["schedule_id"], _firing(row), row["started_ms"], row["run_phase"] or "")


def _position(token: str) -> tuple[int, str]:
    due, separator, occasion = token.partition("|")
    if not separator or not due.removeprefix("-").isdecimal() or abs(int(due[:20])) > 1 << 62:
        raise InvalidArgument(Violation("page_token", "it is not from an earlier answer: leave it out to begin anew"))
    return int(due), occasion
