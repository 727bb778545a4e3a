"""Tables of the index of artifacts."""

import sqlalchemy as sa

from infra.db import metadata

artifacts = sa.Table(
    "artifacts",
    metadata,
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
    sa.Index("ix_artifacts_tenant_run", "tenant", "run_id"),
)

blob_grants = sa.Table(
    "blob_grants",
    metadata,
    sa.Column("tenant", sa.String(255), primary_key=True),
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("media_type", sa.String(255), nullable=False),
    # Whether a person gave the bytes; every other row follows from an event and can be made again.
    sa.Column("given", sa.Boolean, nullable=False, server_default=sa.true()),
    sqlite_with_rowid=False,
)
