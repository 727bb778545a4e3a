"""Schema revisions of every area, applied when a database is opened (infra.db.migrate)."""
