"""SQLite as one durable place: a single writer that commits in groups, readers beside it, one process that holds it."""

from infra.db.database import Database, DatabaseSettings, open_database, shared_database
from infra.db.metadata import metadata
from infra.db.writer import BatchHandler

__all__ = ["BatchHandler", "Database", "DatabaseSettings", "metadata", "open_database", "shared_database"]
