"""The tables of the scheduler. All of it is truth: nothing follows from the journals but which runs have ended."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, String, Table, Text

from infra.db import metadata

_ID = String(36)
_NAME = String(255)

schedules = Table(
    "schedules",
    metadata,
    Column("schedule_id", _ID, primary_key=True),
    Column("tenant", _NAME, nullable=False),
    Column("creator", _NAME, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("mission_id", _ID, nullable=False),
    Column("request_id", _ID),
    Column("request_digest", String(80), nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("anchor_ms", BigInteger, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("next_ms", BigInteger),
    Column("wake_ms", BigInteger),
    Column("turn", BigInteger, nullable=False),
    Column("refusals", BigInteger, nullable=False),
    Column("rest_until_ms", BigInteger, nullable=False),
    Column("refusal", Text, nullable=False),
    Column("last_run_id", _ID, nullable=False),
    Column("started", BigInteger, nullable=False),
    Column("skipped", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("deleted_ms", BigInteger),
)
Index("ux_schedules_request", schedules.c.tenant, schedules.c.request_id, unique=True)
Index("ix_schedules_wake", schedules.c.wake_ms)
Index("ix_schedules_mission", schedules.c.mission_id)

schedule_missions = Table(
    "schedule_missions",  # that are waited for
    metadata,
    Column("schedule_id", _ID, primary_key=True),
    Column("mission_id", _ID, primary_key=True),
    Column("position", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("seen_run_id", _ID, nullable=False),
)
Index("ix_schedule_missions_mission", schedule_missions.c.mission_id)

firings = Table(
    "schedule_firings",
    metadata,
    Column("schedule_id", _ID, primary_key=True),
    Column("due_ms", BigInteger, primary_key=True),
    Column("occasion", _ID, primary_key=True),
    Column("cause", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("mission_id", _ID, nullable=False),
    Column("run_id", _ID, nullable=False),
    Column("decided_by", _ID, nullable=False),
    Column("started_ms", BigInteger),
    Column("through_ms", BigInteger),
)
Index("ix_schedule_firings_state", firings.c.state, firings.c.schedule_id)
