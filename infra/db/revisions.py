"""Which schema a database has, and what brings it to the one that this program knows."""

from __future__ import annotations

from dataclasses import dataclass

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from infra.db.migrate import SCRIPTS, refuse_newer
from infra.errors import Precondition


@dataclass(frozen=True, slots=True)
class Standing:
    """The revisions at which a database stands, those where it should, and the ones between, in their order."""

    at: tuple[str, ...]
    wanted: tuple[str, ...]
    missing: tuple[str, ...]


def standing(connection: Connection) -> Standing:
    """Raises Precondition DATABASE_TOO_NEW."""
    scripts = ScriptDirectory(str(SCRIPTS))
    refuse_newer(connection, scripts)
    at = tuple(sorted(MigrationContext.configure(connection).get_current_heads()))
    applied = {script.revision for head in at for script in scripts.iterate_revisions(head, "base")}
    every = [script.revision for script in scripts.walk_revisions()]
    missing = tuple(revision for revision in reversed(every) if revision not in applied)
    return Standing(at, tuple(sorted(scripts.get_heads())), missing)


def require_present(connection: Connection, name: str) -> None:
    """Raises Precondition DATABASE_TOO_OLD or DATABASE_TOO_NEW for a database of another schema."""
    missing = standing(connection).missing
    if missing:
        raise Precondition(
            "DATABASE_TOO_OLD",
            f"{name} lacks the schema revisions {', '.join(missing)}: run `skyagent db migrate` first",
            missing=", ".join(missing),
        )
