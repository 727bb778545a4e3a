"""The index of artifacts, and who may read which bytes."""

import sqlalchemy as sa
from alembic import op

revision = "agentfs_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "artifacts",
        sa.Column("artifact_id", sa.String(36), primary_key=True),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("step_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("role", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_artifacts_tenant_run", "artifacts", ["tenant", "run_id"])
    op.create_table(
        "blob_grants",
        sa.Column("tenant", sa.String(255), primary_key=True),
        sa.Column("digest", sa.String(80), primary_key=True),
        sa.Column("media_type", sa.String(255), nullable=False),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("blob_grants")
    op.drop_table("artifacts")
