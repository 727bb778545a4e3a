"""Schedules in SQL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

import sqlalchemy as sa

from control.core.turn import State, cycle
from control.journal import wake_topic
from control.scheduler.row import ScheduleRow
from control.scheduler.schema import firings, schedule_missions, schedules
from infra.db import Database, insert_absent
from infra.errors import InvalidArgument, Violation

_T = TypeVar("_T")
_COLUMNS = tuple(column for column in schedules.c)
_NEVER = 1 << 62
"""Sorts behind every time."""
_KEYS = frozenset(
    {"schedule_id", "tenant", "request_id", "request_digest", "created_ms", "started", "skipped", "refused"}
)
"""What a change leaves alone."""


@dataclass(frozen=True, slots=True)
class SchedulePage:
    """Some schedules, and how to ask for the next ones; an empty token ends the list."""

    rows: tuple[ScheduleRow, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class Replaced:
    """A schedule's mission before and after a change; schedules that waited for the one wait for the other."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a schedule becomes, of the turn that the row says. What is None stays.

    `seen_ms` is the moment up to which successes of other missions count as taken up.
    """

    row: ScheduleRow
    upstream: Sequence[str] | None = None
    replaced: Replaced | None = None
    seen_ms: int | None = None


class ScheduleStore:
    """All SQL about schedules themselves; `told` hears of every change in this process."""

    def __init__(self, database: Database, told: Callable[[str], None]) -> None:
        self._database = database
        self._told = told

    async def create(self, row: ScheduleRow, upstream: Sequence[str]) -> ScheduleRow:
        """Write a schedule; a known request_id returns the one that exists."""

        def write(connection: sa.Connection) -> ScheduleRow:
            insert_absent(connection, schedules, [asdict(row)])
            known = _by_request(connection, row.tenant, row.request_id) or row
            if known.schedule_id == row.schedule_id:
                _wait_for(connection, row, upstream)
            return known

        return await self._changed(write, row.schedule_id)

    async def by_request(self, tenant: str, request_id: str) -> ScheduleRow | None:
        """The schedule that a request created, deleted or not."""
        return await self._database.read(lambda connection: _by_request(connection, tenant, request_id or None))

    async def get(self, tenant: str, schedule_id: str) -> ScheduleRow | None:
        """A schedule that is not deleted."""
        chosen = _present(tenant).where(schedules.c.schedule_id == schedule_id)
        return await self._database.read(lambda connection: _one(connection, chosen))

    async def page(self, tenant: str, *, page_size: int, page_token: str) -> SchedulePage:
        """Schedules, next due first."""
        due = sa.case((schedules.c.paused, _NEVER), else_=sa.func.coalesce(schedules.c.next_ms, _NEVER))
        chosen = _present(tenant).order_by(due, schedules.c.schedule_id).limit(page_size + 1)
        if page_token:
            after_ms, after_id = _position(page_token)
            chosen = chosen.where(sa.or_(due > after_ms, sa.and_(due == after_ms, schedules.c.schedule_id > after_id)))
        rows = await self._database.read(lambda connection: _all(connection, chosen))
        shown = rows[:page_size]
        return SchedulePage(shown, _token(shown[-1]) if len(rows) > page_size else "")

    async def change(self, change: Change) -> bool:
        """Write what a schedule became, unless it has another turn than the row; whether it was written.

        Raises InvalidArgument when schedules would wait for each other in a circle.
        """
        row, replaced = change.row, change.replaced
        values = {name: value for name, value in asdict(row).items() if name not in _KEYS}
        mine = (schedules.c.schedule_id == row.schedule_id, schedules.c.turn == row.turn)
        moved = sa.update(schedules).where(*mine, schedules.c.deleted_ms.is_(None))

        def write(connection: sa.Connection) -> bool:
            if connection.execute(moved.values({**values, "turn": row.turn + 1})).rowcount != 1:
                return False
            if replaced is not None and replaced.before != replaced.after:
                follow = sa.update(schedule_missions).where(schedule_missions.c.mission_id == replaced.before)
                connection.execute(follow.values(mission_id=replaced.after))
            if change.upstream is not None:
                _wait_for(connection, row, change.upstream)
                _refuse_circle(connection, row)
            if change.seen_ms is not None:
                connection.execute(_seen_until(row.schedule_id, change.seen_ms))
            if row.deleted_ms is not None:
                connection.execute(_dropped(row.schedule_id))
                _wait_for(connection, row, ())
            return True

        return await self._changed(write, row.schedule_id)

    async def upstream(self, schedule_ids: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """The missions that schedules wait for."""
        chosen = (
            sa.select(schedule_missions.c.schedule_id, schedule_missions.c.mission_id)
            .where(schedule_missions.c.schedule_id.in_(schedule_ids))
            .order_by(schedule_missions.c.position)
        )
        found: dict[str, tuple[str, ...]] = {}
        for row in await self._database.read(lambda connection: connection.execute(chosen).all()):
            found[row.schedule_id] = (*found.get(row.schedule_id, ()), row.mission_id)
        return found

    async def _changed(self, write: Callable[[sa.Connection], _T], schedule_id: str) -> _T:
        return await self._database.transact(
            write, committed=lambda _: self._told(schedule_id), topics=lambda _: (wake_topic(schedule_id),)
        )


def _dropped(schedule_id: str) -> sa.Executable:
    """What waited to start does not start any more."""
    return (
        sa.update(firings)
        .where(firings.c.schedule_id == schedule_id, firings.c.state == State.WAITING)
        .values(state=State.SKIPPED, reason="the schedule was deleted")
    )


def _seen_until(schedule_id: str, seen_ms: int) -> sa.Executable:
    mine = schedule_missions.c.schedule_id == schedule_id
    return sa.update(schedule_missions).where(mine).values(seen_ms=seen_ms, seen_run_id="")


def _wait_for(connection: sa.Connection, row: ScheduleRow, upstream: Sequence[str]) -> None:
    """Makes a schedule wait for these; what it has seen of a mission that it waited for before stays seen."""
    mine = schedule_missions.c.schedule_id == row.schedule_id
    connection.execute(sa.delete(schedule_missions).where(mine, schedule_missions.c.mission_id.not_in(upstream)))
    rows = [
        {
            "schedule_id": row.schedule_id,
            "mission_id": mission_id,
            "position": position,
            "seen_ms": row.anchor_ms,
            "seen_run_id": "",
        }
        for position, mission_id in enumerate(upstream)
    ]
    if rows:
        insert_absent(connection, schedule_missions, rows)


def _refuse_circle(connection: sa.Connection, row: ScheduleRow) -> None:
    """The rows are locked, so that of two changes that make a circle together the second sees the first."""
    present = _present(row.tenant).order_by(schedules.c.schedule_id).with_for_update()
    owners = {found.mission_id: found.schedule_id for found in _all(connection, present)}
    graph: dict[str, set[str]] = {}
    edges = sa.select(schedule_missions.c.schedule_id, schedule_missions.c.mission_id).where(
        schedule_missions.c.mission_id.in_(list(owners))
    )
    for edge in connection.execute(edges):
        graph.setdefault(edge.schedule_id, set()).add(owners[edge.mission_id])
    circle = cycle(graph, row.schedule_id)
    if circle:
        problem = f"schedules would wait for each other: {' → '.join(circle)}; take one of these out"
        raise InvalidArgument(Violation("schedule.after.mission_ids", problem), reason="SCHEDULES_IN_A_CIRCLE")


def _present(tenant: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(*_COLUMNS).where(schedules.c.tenant == tenant, schedules.c.deleted_ms.is_(None))


def _by_request(connection: sa.Connection, tenant: str, request_id: str | None) -> ScheduleRow | None:
    if request_id is None:
        return None
    asked = sa.select(*_COLUMNS).where(schedules.c.tenant == tenant, schedules.c.request_id == request_id)
    return _one(connection, asked)


def _one(connection: sa.Connection, chosen: sa.Select[tuple[object, ...]]) -> ScheduleRow | None:
    row = connection.execute(chosen).mappings().one_or_none()
    return None if row is None else ScheduleRow(**row)


def _all(connection: sa.Connection, chosen: sa.Select[tuple[object, ...]]) -> tuple[ScheduleRow, ...]:
    return tuple(ScheduleRow(**row) for row in connection.execute(chosen).mappings())


def _token(row: ScheduleRow) -> str:
    due = row.next_ms if row.next_ms is not None and not row.paused else _NEVER
    return f"{due}|{row.schedule_id}"


def _position(token: str) -> tuple[int, str]:
    due, separator, schedule_id = token.partition("|")
    if not separator or not due.isdecimal() or int(due[:20]) > _NEVER:
        raise InvalidArgument(Violation("page_token", "it is not from an earlier answer: leave it out to begin anew"))
    return int(due), schedule_id
