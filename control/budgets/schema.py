"""Tables of budgets. All of them are truth: none follows from the journals alone."""

from __future__ import annotations

import sqlalchemy as sa

from infra.db import metadata

_ID = sa.String(36)
_NAME = sa.String(255)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("tenant", _NAME, primary_key=True),
    sa.Column("mission_id", _ID, primary_key=True),  # empty: the tenant's own
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("limit_amount", sa.BigInteger, nullable=False),
    # Ever granted; of that ever given back; of that used by runs that have ended.
    sa.Column("granted", sa.BigInteger, nullable=False),
    sa.Column("returned", sa.BigInteger, nullable=False),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("updated_ms", sa.BigInteger, nullable=False),
    sa.Column("actor", _NAME, nullable=False),
    sa.CheckConstraint("granted - returned <= limit_amount", name="never_over"),
    sa.CheckConstraint("spent >= 0 AND spent <= granted - returned", name="adds_up"),
)

allotments = sa.Table(
    "allotments",
    metadata,
    sa.Column("run_id", _ID, primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("tenant", _NAME, nullable=False),
    sa.Column("mission_id", _ID, nullable=False),
    sa.Column("from_mission", sa.Boolean, nullable=False),
    sa.Column("from_tenant", sa.Boolean, nullable=False),
    sa.Column("granted", sa.BigInteger, nullable=False),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("settled", sa.Boolean, nullable=False),
    sa.CheckConstraint("spent >= 0 AND spent <= granted", name="never_over"),
    sa.Index("ix_allotments_budget", "tenant", "kind", "mission_id", "run_id"),
)
sa.Index(
    "ix_allotments_open",
    allotments.c.run_id,
    sqlite_where=allotments.c.settled == sa.false(),
    postgresql_where=allotments.c.settled == sa.false(),
)

grants = sa.Table(
    "budget_grants",
    metadata,
    sa.Column("grant_id", sa.String(128), primary_key=True),
    sa.Column("run_id", _ID, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("top_up", sa.Boolean, nullable=False),
    sa.Column("created_ms", sa.BigInteger, nullable=False),
    sa.Index("ix_budget_grants_run", "run_id", "kind"),
)

raises = sa.Table(
    "budget_raises",
    metadata,
    # Of a mission's budget, by the request that asked for it, so that asking again raises nothing.
    sa.Column("tenant", _NAME, primary_key=True),
    sa.Column("request_id", _ID, primary_key=True),
    sa.Column("mission_id", _ID, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
)
