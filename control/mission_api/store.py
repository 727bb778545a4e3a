"""Missions as rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from control.journal import Erasure
from control.journal.schema import erasures, runs
from infra.db import Database, insert_absent, metadata
from skyagent.mission.v1.mission_pb2 import Mission, MissionSpec

# What was asked is truth; only current_run_id and run_count follow from the journals.
missions = sa.Table(
    "missions",
    metadata,
    sa.Column("mission_id", sa.String(36), primary_key=True),
    sa.Column("tenant", sa.String(255), nullable=False),
    sa.Column("creator", sa.String(255), nullable=False),
    sa.Column("spec", sa.LargeBinary, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Column("request_id", sa.String(36)),
    sa.Column("request_digest", sa.String(80), nullable=False),
    sa.Column("current_run_id", sa.String(36), nullable=False),
    sa.Column("run_count", sa.Integer, nullable=False),
    sa.Column("deleted_ms", sa.BigInteger),
    sa.Index("ix_missions_tenant", "tenant", "mission_id"),
    sa.Index("ux_missions_request", "tenant", "request_id", unique=True),
)


@dataclass(frozen=True, slots=True)
class MissionRow:
    """A mission. `request_digest` is of the request that created it; `spec` is what that request came to."""

    mission_id: str
    tenant: str
    creator: str
    spec: bytes
    created_ms: int
    request_id: str | None
    request_digest: str
    current_run_id: str = ""
    run_count: int = 0
    deleted_ms: int | None = None

    def contract(self) -> Mission:
        """As clients see it."""
        mission = Mission(
            mission_id=self.mission_id,
            spec=MissionSpec.FromString(self.spec),
            creator=self.creator,
            current_run_id=self.current_run_id,
            run_count=self.run_count,
        )
        mission.create_time.FromMilliseconds(self.created_ms)
        return mission


@dataclass(frozen=True, slots=True)
class MissionPage:
    """Some missions, and how to ask for the next ones; an empty token ends the list."""

    rows: tuple[MissionRow, ...]
    next_page_token: str


class MissionStore:
    """All SQL about missions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, row: MissionRow, *, also: Sequence[sa.Executable] = ()) -> MissionRow:
        """Write a mission that has no run yet, and what belongs to it.

        A known request_id returns the mission that exists.
        """

        def write(connection: sa.Connection) -> MissionRow:
            same = _present(row.tenant).where(missions.c.mission_id == row.mission_id)
            known = _by_request(connection, row.tenant, row.request_id) or _one(connection, same)
            if known is not None:
                return known
            insert_absent(connection, missions, [asdict(row)])
            created = _by_request(connection, row.tenant, row.request_id) or row
            for statement in also if created.mission_id == row.mission_id else ():
                connection.execute(statement)
            return created

        return await self._database.transact(write)

    async def by_request(self, tenant: str, request_id: str) -> MissionRow | None:
        """The mission that a request created, deleted or not."""
        return await self._database.read(lambda connection: _by_request(connection, tenant, request_id or None))

    async def get(self, tenant: str, mission_id: str) -> MissionRow | None:
        """A mission that is not deleted."""
        chosen = _present(tenant).where(missions.c.mission_id == mission_id)
        return await self._database.read(lambda connection: _one(connection, chosen))

    async def page(self, tenant: str, *, page_size: int, page_token: str) -> MissionPage:
        """Missions, newest first."""
        chosen = _present(tenant).order_by(missions.c.mission_id.desc()).limit(page_size + 1)
        if page_token:
            chosen = chosen.where(missions.c.mission_id < page_token)
        rows = await self._database.read(lambda connection: connection.execute(chosen).mappings().all())
        shown = tuple(MissionRow(**row) for row in rows[:page_size])
        return MissionPage(shown, shown[-1].mission_id if len(rows) > page_size else "")

    async def delete(self, tenant: str, mission_id: str, now_ms: int) -> None:
        """Mark a mission as deleted."""
        marked = (
            sa.update(missions)
            .where(missions.c.tenant == tenant, missions.c.mission_id == mission_id)
            .values(deleted_ms=now_ms)
        )
        await self._database.transact(lambda connection: connection.execute(marked).close())


def inserted(row: MissionRow) -> sa.Executable:
    """The statement that creates a mission, for the transaction that creates its first run."""
    return sa.insert(missions).values(asdict(row))


def with_run(mission_id: str, run_id: str) -> sa.Executable:
    """The statement that makes a run the latest of its mission, for the transaction that creates it."""
    return (
        sa.update(missions)
        .where(missions.c.mission_id == mission_id)
        .values(current_run_id=run_id, run_count=missions.c.run_count + 1)
    )


def erase_spec(connection: sa.Connection, erasure: Erasure) -> None:
    """Forgets what a mission asked, once all of its runs are erased."""
    whole = sa.select(erasures.c.run_id).where(erasures.c.seqs == "")
    left = sa.select(runs.c.run_id).where(runs.c.mission_id == erasure.mission_id, runs.c.run_id.not_in(whole))
    if erasure.all and connection.execute(left.limit(1)).first() is None:
        gone = sa.update(missions).where(missions.c.mission_id == erasure.mission_id)
        connection.execute(gone.values(spec=b"", deleted_ms=erasure.time_ms))


def specs(connection: sa.Connection) -> Iterator[bytes]:
    """What every mission asked."""
    with connection.execute(sa.select(missions.c.spec).execution_options(yield_per=500)) as rows:
        yield from rows.scalars()


def latest_runs(connection: sa.Connection) -> None:
    """Makes again what a mission's row says of its runs."""
    of_mission = runs.c.mission_id == missions.c.mission_id
    latest = sa.select(sa.func.coalesce(sa.func.max(runs.c.run_id), "")).where(of_mission).scalar_subquery()
    count = sa.select(sa.func.count()).select_from(runs).where(of_mission).scalar_subquery()
    connection.execute(sa.update(missions).values(current_run_id=latest, run_count=count))


def _present(tenant: str) -> sa.Select[tuple[object, ...]]:
    return sa.select(missions).where(missions.c.tenant == tenant, missions.c.deleted_ms.is_(None))


def _by_request(connection: sa.Connection, tenant: str, request_id: str | None) -> MissionRow | None:
    if request_id is None:
        return None
    chosen = sa.select(missions).where(missions.c.tenant == tenant, missions.c.request_id == request_id)
    return _one(connection, chosen)


def _one(connection: sa.Connection, chosen: sa.Select[tuple[object, ...]]) -> MissionRow | None:
    row = connection.execute(chosen).mappings().one_or_none()
    return None if row is None else MissionRow(**row)
