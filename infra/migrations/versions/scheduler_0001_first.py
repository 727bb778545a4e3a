"""Schedules, what they wait for, and what became of their due times."""

import sqlalchemy as sa
from alembic import op

revision = "scheduler_0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(36)
_NAME = sa.String(255)


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("schedule_id", _ID, primary_key=True),
        sa.Column("tenant", _NAME, nullable=False),
        sa.Column("creator", _NAME, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("mission_id", _ID, nullable=False),
        sa.Column("request_id", _ID),
        sa.Column("request_digest", sa.String(80), nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("anchor_ms", sa.BigInteger, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
        sa.Column("next_ms", sa.BigInteger),
        sa.Column("wake_ms", sa.BigInteger),
        sa.Column("turn", sa.BigInteger, nullable=False),
        sa.Column("refusals", sa.BigInteger, nullable=False),
        sa.Column("rest_until_ms", sa.BigInteger, nullable=False),
        sa.Column("refusal", sa.Text, nullable=False),
        sa.Column("last_run_id", _ID, nullable=False),
        sa.Column("started", sa.BigInteger, nullable=False),
        sa.Column("skipped", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("deleted_ms", sa.BigInteger),
    )
    op.create_index("ux_schedules_request", "schedules", ["tenant", "request_id"], unique=True)
    op.create_index("ix_schedules_wake", "schedules", ["wake_ms"])
    op.create_index("ix_schedules_mission", "schedules", ["mission_id"])
    op.create_table(
        "schedule_missions",
        sa.Column("schedule_id", _ID, primary_key=True),
        sa.Column("mission_id", _ID, primary_key=True),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("seen_ms", sa.BigInteger, nullable=False),
        sa.Column("seen_run_id", _ID, nullable=False),
    )
    op.create_index("ix_schedule_missions_mission", "schedule_missions", ["mission_id"])
    op.create_table(
        "schedule_firings",
        sa.Column("schedule_id", _ID, primary_key=True),
        sa.Column("due_ms", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("occasion", _ID, primary_key=True),
        sa.Column("cause", sa.String(16), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("mission_id", _ID, nullable=False),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("decided_by", _ID, nullable=False),
        sa.Column("started_ms", sa.BigInteger),
        sa.Column("through_ms", sa.BigInteger),
    )
    op.create_index("ix_schedule_firings_state", "schedule_firings", ["state", "schedule_id"])


def downgrade() -> None:
    op.drop_table("schedule_firings")
    op.drop_table("schedule_missions")
    op.drop_table("schedules")
