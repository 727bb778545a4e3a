"""The journal: runs, events, commands, approvals, owners, and what is derived from them."""

import sqlalchemy as sa
from alembic import op

revision = "journal_0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.String(36)
_NAME = sa.String(255)
_PARTITIONS = 16


def upgrade() -> None:
    _truth()
    _ownership()
    _derived()


def _truth() -> None:
    runs = op.create_table(
        "runs",
        sa.Column("run_id", _ID, primary_key=True),
        sa.Column("mission_id", _ID, nullable=False),
        sa.Column("tenant", _NAME, nullable=False),
        sa.Column("request_id", _ID),
        sa.Column("head_seq", sa.BigInteger, nullable=False),
        sa.Column("head_hash", sa.LargeBinary, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("control_gen", sa.BigInteger, nullable=False),
        sa.Column("log_generation", sa.BigInteger, nullable=False),
        sa.Column("fold_version", sa.Integer, nullable=False),
        sa.Column("owner_node", _NAME),
        sa.Column("owner_incarnation", _ID),
        sa.Column("parent_run_id", _ID),
        sa.Column("parent_seq", sa.BigInteger),
        sa.Column("parent_hash", sa.LargeBinary),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("terminal", sa.Boolean, nullable=False),
        sa.UniqueConstraint("tenant", "request_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_runs_tenant_mission", "runs", ["tenant", "mission_id"])
    still_open = runs.c.terminal == sa.false()
    op.create_index("ix_runs_open", "runs", ["run_id"], sqlite_where=still_open, postgresql_where=still_open)
    op.create_table(
        "run_events",
        sa.Column("run_id", _ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True),
        sa.Column("append_id", _ID, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Integer, nullable=False),
        sa.Column("ts_ms", sa.BigInteger, nullable=False),
        sa.Column("payload", sa.LargeBinary),
        sa.Column("payload_digest", sa.LargeBinary, nullable=False),
        sa.Column("prev_hash", sa.LargeBinary, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
        postgresql_partition_by="HASH (run_id)",
    )
    if op.get_bind().dialect.name == "postgresql":
        for number in range(_PARTITIONS):
            op.execute(
                f"CREATE TABLE run_events_{number} PARTITION OF run_events"
                f" FOR VALUES WITH (MODULUS {_PARTITIONS}, REMAINDER {number})"
            )
    op.create_table(
        "run_commands",
        sa.Column("cmd_id", _ID, primary_key=True),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("kind", _NAME, nullable=False),
        sa.Column("actor", _NAME, nullable=False),
        sa.Column("payload", sa.LargeBinary, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("control_gen", sa.BigInteger, nullable=False),
        sa.Column("applied_seq", sa.BigInteger),
        sa.Column("approval_id", _ID),
        sa.Column("decision", sa.String(16)),
        sa.Column("note", sa.Text),
        sa.UniqueConstraint("run_id", "control_gen"),
    )
    op.create_table(
        "approvals",
        sa.Column("approval_id", _ID, primary_key=True),
        sa.Column("run_id", _ID, nullable=False),
        sa.Column("tenant", _NAME, nullable=False),
        sa.Column("step_id", _ID, nullable=False),
        sa.Column("action_digest", sa.String(80), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        sa.Column("requested_seq", sa.BigInteger, nullable=False),
        sa.Column("requested_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("decided_by", _NAME),
        sa.Column("decided_ms", sa.BigInteger),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("consumed_by", _ID, unique=True),
    )
    op.create_index("ix_approvals_tenant_status", "approvals", ["tenant", "status"])
    op.create_index("ix_approvals_due", "approvals", ["status", "expires_ms"])
    op.create_index("ix_approvals_run", "approvals", ["run_id"])


def _ownership() -> None:
    op.create_table(
        "nodes",
        sa.Column("node_id", _NAME, primary_key=True),
        sa.Column("incarnation", _ID, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "worker_streams",
        sa.Column("worker_id", _NAME, primary_key=True),
        sa.Column("incarnation", _ID, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.Column("node_id", _NAME, nullable=False),
    )
    meta = op.create_table(
        "journal_meta",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(meta, [{"name": "log_generation", "value": 1}])


def _derived() -> None:
    op.create_table(
        "run_projections",
        sa.Column("run_id", _ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(64), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "snapshots",
        sa.Column("run_id", _ID, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("fold_version", sa.Integer, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.Column("digest", sa.String(80), nullable=False),
    )
