"""The tables of the journal.

Truth is run_events with run_archives, run_commands, approvals, lineage_steps, erasures and the counters of runs;
run_projections, snapshots, and what else stands in runs can be made again (control/rebuild.py).
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

from infra.db import metadata

_ID = String(36)
_NAME = String(255)

runs = Table(
    "runs",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("mission_id", _ID, nullable=False),
    Column("tenant", _NAME, nullable=False),
    Column("request_id", _ID),
    Column("head_seq", BigInteger, nullable=False),
    Column("head_hash", LargeBinary, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("control_gen", BigInteger, nullable=False),
    Column("log_generation", BigInteger, nullable=False),
    Column("fold_version", Integer, nullable=False),
    Column("owner_node", _NAME),
    Column("owner_incarnation", _ID),
    Column("parent_run_id", _ID),
    Column("parent_seq", BigInteger),
    Column("parent_hash", LargeBinary),
    Column("created_ms", BigInteger, nullable=False),
    Column("terminal", Boolean, nullable=False),
    UniqueConstraint("tenant", "request_id"),
    sqlite_with_rowid=False,
)
Index("ix_runs_tenant_mission", runs.c.tenant, runs.c.mission_id)
Index(
    "ix_runs_open", runs.c.run_id, sqlite_where=runs.c.terminal == false(), postgresql_where=runs.c.terminal == false()
)

run_events = Table(
    "run_events",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("seq", BigInteger, primary_key=True),
    Column("append_id", _ID, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("ts_ms", BigInteger, nullable=False),
    Column("payload", LargeBinary),
    Column("payload_digest", LargeBinary, nullable=False),
    Column("prev_hash", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
    postgresql_partition_by="HASH (run_id)",
)

run_commands = Table(
    "run_commands",
    metadata,
    Column("cmd_id", _ID, primary_key=True),
    Column("run_id", _ID, nullable=False),
    Column("kind", _NAME, nullable=False),
    Column("actor", _NAME, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("control_gen", BigInteger, nullable=False),
    Column("applied_seq", BigInteger),
    Column("approval_id", _ID),
    Column("decision", String(16)),
    Column("note", Text),
    UniqueConstraint("run_id", "control_gen"),
)

approvals = Table(
    "approvals",
    metadata,
    Column("approval_id", _ID, primary_key=True),
    Column("run_id", _ID, nullable=False),
    Column("tenant", _NAME, nullable=False),
    Column("step_id", _ID, nullable=False),
    Column("action_digest", String(80), nullable=False),
    Column("status", String(16), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("requested_seq", BigInteger, nullable=False),
    Column("requested_ms", BigInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("decided_by", _NAME),
    Column("decided_ms", BigInteger),
    Column("note", Text, nullable=False),
    Column("consumed_by", _ID, unique=True),
)
Index("ix_approvals_tenant_status", approvals.c.tenant, approvals.c.status)
Index("ix_approvals_due", approvals.c.status, approvals.c.expires_ms)
Index("ix_approvals_run", approvals.c.run_id)

lineage_steps = Table(
    "lineage_steps",
    metadata,
    Column("lineage", _ID, primary_key=True),
    Column("step_id", _ID, primary_key=True),
    Column("run_id", _ID, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("open", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

nodes = Table(
    "nodes",
    metadata,
    Column("node_id", _NAME, primary_key=True),
    Column("incarnation", _ID, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("address", _NAME, nullable=False, server_default=""),
)

worker_streams = Table(
    "worker_streams",
    metadata,
    Column("worker_id", _NAME, primary_key=True),
    Column("incarnation", _ID, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("node_id", _NAME, nullable=False),
)

journal_meta = Table(
    "journal_meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
LOG_GENERATION = "log_generation"
PROBED_MS = "probed_ms"
"""When something was last written to see whether it can be."""

run_projections = Table(
    "run_projections",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("state", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("fold_version", Integer, nullable=False),
    Column("state", LargeBinary, nullable=False),
    Column("digest", String(80), nullable=False),
)

run_archives = Table(
    "run_archives",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("digest", String(80), nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("archived_ms", BigInteger, nullable=False),
    # Until it is, the rows are still what counts; the digest then names what a crash may have left behind.
    Column("done", Boolean, nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_id", _ID, primary_key=True),
    Column("run_id", _ID, nullable=False),
    Column("mission_id", _ID, nullable=False),
    Column("tenant", _NAME, nullable=False),
    # Sequence numbers with spaces between; nothing stands for all.
    Column("seqs", Text, nullable=False),
    Column("actor", _NAME, nullable=False),
    Column("reason", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("phase", String(64), nullable=False),
    Column("finished_ms", BigInteger, nullable=False),
    # Digests with spaces between: blobs to remove unless something else names them.
    Column("unwanted", Text, nullable=False),
    Column("scrubbed", Boolean, nullable=False),
)
Index("ix_erasures_run", erasures.c.run_id)
