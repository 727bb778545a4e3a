import importlib
import pkgutil
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

import control
from infra.db import metadata, open_database
from infra.errors import Precondition
from tests.control.journal.world import World, opened


def declare_every_table() -> None:
    """Imports whatever declares tables of the control plane."""
    for module in pkgutil.walk_packages(control.__path__, "control."):
        if module.name.rpartition(".")[2] in ("schema", "store", "tables"):
            importlib.import_module(module.name)


async def test_the_revisions_make_exactly_the_tables_that_are_declared(world: World) -> None:
    declare_every_table()

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, metadata))

    assert await world.db.read(differences) == []


async def test_run_and_event_rows_are_kept_in_their_key(world: World) -> None:
    def without_rowid(connection: Connection) -> set[str]:
        return {
            name
            for name in inspect(connection).get_table_names()
            if inspect(connection).get_table_options(name).get("sqlite_with_rowid") is False
        }

    assert {"runs", "run_events"} <= await world.db.read(without_rowid)


async def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with opened(path) as world:
        run = await world.owned()
    async with opened(path) as world:
        assert await world.journal.head(run.run_id) == run


async def test_a_database_of_a_newer_program_is_refused(world: World) -> None:
    path = world.db.path.with_name("newer.db")
    async with open_database(path) as newer:
        await newer.transact(lambda c: c.exec_driver_sql("INSERT INTO alembic_version VALUES ('journal_9999')"))
    with pytest.raises(Precondition) as refused:
        async with open_database(path):
            pass
    assert refused.value.reason == "DATABASE_TOO_NEW"
    assert "journal_9999" in refused.value.message
