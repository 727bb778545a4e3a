import importlib
import pkgutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

import control
from infra.db import metadata
from infra.errors import Precondition
from tests.control.journal.world import World, database, opened


def declare_every_table() -> None:
    """Imports whatever declares tables of the control plane."""
    for module in pkgutil.walk_packages(control.__path__, "control."):
        if module.name.rpartition(".")[2] in ("schema", "store", "tables"):
            importlib.import_module(module.name)


def declared(_object: object, name: str | None, kind: str, *_: object) -> bool:
    """Whether something of the database is declared: the parts of run_events are not."""
    return not (kind == "table" and (name or "").startswith("run_events_"))


async def test_the_revisions_make_exactly_the_tables_that_are_declared(world: World) -> None:
    declare_every_table()

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "include_object": declared}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert await world.db.read(differences) == []


async def test_run_and_event_rows_are_kept_in_their_key(tmp_path: Path) -> None:
    def without_rowid(connection: Connection) -> set[str]:
        return {
            name
            for name in inspect(connection).get_table_names()
            if inspect(connection).get_table_options(name).get("sqlite_with_rowid") is False
        }

    async with opened(tmp_path / "journal.db") as world:
        assert {"runs", "run_events"} <= await world.db.read(without_rowid)


async def test_opening_again_keeps_everything(place: Path | str) -> None:
    async with opened(place) as world:
        run = await world.owned()
    async with opened(place) as world:
        assert await world.journal.head(run.run_id) == run


async def test_a_database_of_a_newer_program_is_refused(place: Path | str) -> None:
    async with database(place, "FULL") as newer:
        await newer.transact(lambda c: c.exec_driver_sql("INSERT INTO alembic_version VALUES ('journal_9999')"))
    with pytest.raises(Precondition) as refused:
        async with database(place, "FULL"):
            pass
    assert refused.value.reason == "DATABASE_TOO_NEW"
    assert "journal_9999" in refused.value.message
