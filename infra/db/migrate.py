"""Brings a database to the schema this program knows, and refuses one that a newer program made."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

import infra.migrations
from infra.db.metadata import metadata
from infra.errors import Precondition

SCRIPTS = Path(infra.migrations.__file__).parent


def upgrade(connection: Connection) -> None:
    """Apply every missing revision of every area inside the transaction that the caller has begun.

    Raises Precondition DATABASE_TOO_NEW.
    """
    config = Config()
    scripts = ScriptDirectory(str(SCRIPTS))
    refuse_newer(connection, scripts)

    def missing(revision: object, _context: MigrationContext) -> object:
        # Alembic's own `upgrade` command calls it so; it has no public name.
        return scripts._upgrade_revs("heads", revision)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportArgumentType]

    with EnvironmentContext(config, scripts, fn=missing) as environment:
        environment.configure(
            connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=False
        )
        environment.run_migrations()


def refuse_newer(connection: Connection, scripts: ScriptDirectory) -> None:
    """Raises Precondition DATABASE_TOO_NEW for a revision that these scripts do not have."""
    for revision in MigrationContext.configure(connection).get_current_heads():
        try:
            scripts.get_revision(revision)
        except CommandError as unknown:
            raise Precondition(
                "DATABASE_TOO_NEW",
                f"the database has schema revision {revision!r}, which this version of skyagent does not know: "
                "install the version that wrote it, or a newer one",
                revision=revision,
            ) from unknown
