"""Budgets of tenants and missions, and what they granted to runs."""

import sqlalchemy as sa
from alembic import op

revision = "budgets_0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(36)
_NAME = sa.String(255)
_KIND = sa.String(16)


def upgrade() -> None:
    op.create_table(
        "budgets",
        sa.Column("tenant", _NAME, primary_key=True),
        sa.Column("mission_id", _ID, primary_key=True),
        sa.Column("kind", _KIND, primary_key=True),
        sa.Column("limit_amount", sa.BigInteger, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("returned", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", _NAME, nullable=False),
        sa.CheckConstraint("granted - returned <= limit_amount", name="ck_budgets_never_over"),
        sa.CheckConstraint("spent >= 0 AND spent <= granted - returned", name="ck_budgets_adds_up"),
    )
    op.create_table(
        "allotments",
        sa.Column("run_id", _ID, primary_key=True),
        sa.Column("kind", _KIND, primary_key=True),
        sa.Column("tenant", _NAME, nullable=False),
        sa.Column("mission_id", _ID, nullable=False),
        sa.Column("from_mission", sa.Boolean, nullable=False),
        sa.Column("from_tenant", sa.Boolean, nullable=False),
        sa.Column("granted", sa.BigInteger, nullable=False),
        sa.Column("spent", sa.BigInteger, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.CheckConstraint("spent >= 0 AND spent <= granted", name="ck_allotments_never_over"),
    )
    op.create_index("ix_allotments_budget", "allotments", ["tenant", "kind", "mission_id", "run_id"])
    is_open = sa.column("settled") == sa.false()
    op.create_index("ix_allotments_open", "allotments", ["run_id"], sqlite_where=is_open, postgresql_where=is_open)
    op.create_table(
        "budget_grants",
        sa.Column("grant_id", sa.String(128), primary_key=True),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("kind", _KIND, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("top_up", sa.Boolean, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_budget_grants_run", "budget_grants", ["run_id", "kind"])
    op.create_table(
        "budget_raises",
        sa.Column("tenant", _NAME, primary_key=True),
        sa.Column("request_id", _ID, primary_key=True),
        sa.Column("mission_id", _ID, nullable=False),
        sa.Column("kind", _KIND, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("budget_raises", "budget_grants", "allotments", "budgets"):
        op.drop_table(table)
