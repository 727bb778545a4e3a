"""One durable place: a writer that commits in groups, readers beside it. SQLite by default, PostgreSQL to share."""

from infra.db.backend import Backend
from infra.db.database import EVERYTHING, Database, DatabaseSettings, System
from infra.db.insert import insert_absent, insert_into
from infra.db.metadata import metadata
from infra.db.opening import shared_database
from infra.db.postgres import open_postgres
from infra.db.sqlite import open_database
from infra.db.writer import BatchHandler

__all__ = [
    "EVERYTHING",
    "Backend",
    "BatchHandler",
    "Database",
    "DatabaseSettings",
    "System",
    "insert_absent",
    "insert_into",
    "metadata",
    "open_database",
    "open_postgres",
    "shared_database",
]
