"""Where archived events are, and what was erased, by whom and why."""

import sqlalchemy as sa
from alembic import op

revision = "journal_0004"
down_revision = "journal_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "run_archives",
        sa.Column("run_id", sa.String(36), primary_key=True),
        sa.Column("digest", sa.String(80), nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("archived_ms", sa.BigInteger, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
    )
    op.create_table(
        "erasures",
        sa.Column("erasure_id", sa.String(36), primary_key=True),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("mission_id", sa.String(36), nullable=False),
        sa.Column("tenant", sa.String(255), nullable=False),
        sa.Column("seqs", sa.Text, nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("phase", sa.String(64), nullable=False),
        sa.Column("finished_ms", sa.BigInteger, nullable=False),
        sa.Column("unwanted", sa.Text, nullable=False),
        sa.Column("scrubbed", sa.Boolean, nullable=False),
    )
    op.create_index("ix_erasures_run", "erasures", ["run_id"])


def downgrade() -> None:
    op.drop_table("erasures")
    op.drop_table("run_archives")
