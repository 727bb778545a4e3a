"""Missions: what was asked, by whom, and the latest run of it."""

import sqlalchemy as sa
from alembic import op

revision = "mission_api_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "missions",
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
    )
    op.create_index("ix_missions_tenant", "missions", ["tenant", "mission_id"])
    op.create_index("ux_missions_request", "missions", ["tenant", "request_id"], unique=True)


def downgrade() -> None:
    op.drop_table("missions")
