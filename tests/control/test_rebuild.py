"""What follows from the journals is dropped and made again, also by `skyagent audit rebuild`."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import Connection

from control.core.summary import state_digest
from control.journal import open_journal
from control.journal.folding import event_of, folded_run
from control.rebuild import DERIVED, Progress, rebuild
from gateway.supervisor.lock import up_lock
from infra.clock import SystemClock
from infra.db import Database, open_database
from infra.settings import Settings
from skyagent.run.v1 import event_pb2 as ev
from tests.control.grown import EVENTS, LENGTHS, Dump, dump, grow
from tests.fold import journals

pytestmark = pytest.mark.timeout(120)

DROP = (
    "DELETE FROM run_projections",
    "DELETE FROM snapshots",
    "DELETE FROM artifacts",
    "DELETE FROM blob_grants WHERE NOT given",
    "UPDATE runs SET mission_id = '', tenant = '', fold_version = 0, created_ms = 0, terminal = 0",
    "UPDATE missions SET current_run_id = '', run_count = 0",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def grown(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return await grow(tmp_path_factory.mktemp("grown"))


@pytest.fixture
def settings(grown: Settings, tmp_path: Path) -> Settings:
    """A copy to damage."""
    (tmp_path / "data").mkdir()
    shutil.copy(grown.journal_path, tmp_path / "data")
    return Settings(data_dir=tmp_path / "data")


def quiet(_progress: Progress) -> None:
    """Tells nobody."""


async def sql(settings: Settings, *statements: str) -> Dump:
    """What the tables hold after some statements."""

    def run(connection: Connection) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    async with open_database(settings.journal_path) as database:
        await database.transact(run)
        return await dump(database)


@dataclass(frozen=True)
class Said:
    code: int
    lines: list[dict[str, object]]
    err: str

    def table(self, name: str) -> dict[str, object]:
        return next(line for line in self.lines if line.get("table") == name)


async def audit(settings: Settings, *arguments: str) -> Said:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "audit", *arguments),
        env=os.environ | {"SKYAGENT_DATA_DIR": str(settings.data_dir)},
        cwd=journals.REPOSITORY,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    return Said(process.returncode or 0, [json.loads(line) for line in out.decode().splitlines()], err.decode())


async def test_dropped_projections_of_ten_thousand_mixed_events_come_back_byte_for_byte(settings: Settings) -> None:
    before = await sql(settings)
    assert len(before["run_events"]) == EVENTS
    assert {row[4] for row in before["run_events"]} == {field.number for field in ev.EventBody.DESCRIPTOR.fields}
    for table in ("run_projections", "snapshots", "artifacts", "blob_grants", "missions", "approvals", "run_commands"):
        assert len(before[table]) > 1, table
    dropped = await sql(settings, *DROP)
    assert {name for name in before if before[name] != dropped[name]} == {name.partition(":")[0] for name in DERIVED}
    async with open_database(settings.journal_path) as database:
        report = await rebuild(database, quiet)
        after = await dump(database)
    for table, rows in before.items():
        assert after[table] == rows, table
    assert (report.runs, report.events, report.left_alone) == (len(LENGTHS), EVENTS, ())


@pytest.mark.skipif(not (journals.DASHBOARD / "node_modules").exists(), reason="`make setup` installs them")
async def test_stored_journals_fold_to_the_same_state_in_typescript(settings: Settings, tmp_path: Path) -> None:
    paths, digests = list[Path](), list[str]()
    async with open_database(settings.journal_path) as db, open_journal(db, clock=SystemClock()) as journal:
        for head in await journal.heads():
            events = [event_of(stored) for stored in await journal.read(head.run_id, limit=EVENTS)]
            paths.append(journals.write(tmp_path / head.run_id, events))
            digests.append(state_digest((await folded_run(journal, head.run_id)).folded.state))
    assert await asyncio.to_thread(journals.typescript_digests, paths) == digests


async def test_audit_rebuild_says_of_each_table_that_the_same_came_back(settings: Settings) -> None:
    before = await sql(settings)
    said = await audit(settings, "rebuild")
    assert (said.code, said.err) == (0, "")
    assert [said.table(name)["same"] for name in DERIVED] == [True] * len(DERIVED)
    assert said.table("run_projections")["dropped"] == len(LENGTHS)
    assert [line["run"] for line in said.lines if "run" in line] == [*range(1, len(LENGTHS) + 1)]
    assert said.lines[-1] == {"runs": len(LENGTHS), "events": EVENTS, "same": True}
    assert await sql(settings) == before


async def test_audit_rebuild_mends_what_is_false_and_says_so_by_exit_code_1(settings: Settings) -> None:
    before = await sql(settings)
    run_id = str(before["run_projections"][0][0])
    lies = (
        f"UPDATE run_projections SET body = x'00' WHERE run_id = '{run_id}'",
        "UPDATE artifacts SET tenant = 'mallory' WHERE artifact_id = (SELECT min(artifact_id) FROM artifacts)",
        "INSERT INTO snapshots VALUES ('no such run', 1, 1, x'00', 'b3:')",
    )
    await sql(settings, *lies)
    said = await audit(settings, "rebuild")
    assert said.code == 1
    assert (said.table("run_projections")["changed"], said.table("run_projections")["firstChanged"]) == (1, run_id)
    assert said.table("artifacts")["changed"] == 1
    assert said.table("snapshots")["firstChanged"] == "no such run"
    assert await sql(settings) == before
    assert (await audit(settings, "rebuild")).code == 0


async def test_a_run_whose_journal_is_not_as_it_was_written_keeps_what_it_has_and_is_named(settings: Settings) -> None:
    run_id = str((await sql(settings))["runs"][0][0])
    damaged = await sql(settings, f"UPDATE run_events SET kind = kind + 1 WHERE run_id = '{run_id}' AND seq = 7")
    said = await audit(settings, "rebuild")
    assert said.code == 1
    (left,) = [line for line in said.lines if "leftAlone" in line]
    assert left["runId"] == run_id
    assert str(left["leftAlone"]).startswith("event 7 does not have the hash of what it says")
    assert await sql(settings) == damaged


async def test_a_run_of_a_newer_program_keeps_what_it_has_and_is_named(settings: Settings) -> None:
    run_id = str((await sql(settings))["runs"][0][0])
    newer = await sql(settings, f"UPDATE runs SET fold_version = 99 WHERE run_id = '{run_id}'")
    said = await audit(settings, "rebuild")
    assert said.code == 1
    assert [line["runId"] for line in said.lines if "leftAlone" in line] == [run_id]
    assert await sql(settings) == newer


async def test_a_rebuild_that_breaks_half_way_has_changed_nothing(settings: Settings) -> None:
    dropped = await sql(settings, *DROP)

    def break_off(progress: Progress) -> None:
        if progress.number == len(LENGTHS) // 2:
            raise KeyError(progress.run_id)

    async with open_database(settings.journal_path) as database:
        with pytest.raises(KeyError):
            await rebuild(database, break_off)
        assert await dump(database) == dropped


async def test_an_audit_of_the_files_is_refused_while_a_mesh_runs_on_them(settings: Settings) -> None:
    with up_lock(settings.up_lock_path):
        beside_up = [await audit(settings, *arguments) for arguments in (("rebuild",), ("verify", "--offline"))]
    async with open_database(settings.journal_path):
        beside_serve = await audit(settings, "rebuild")
    for said in (*beside_up, beside_serve):
        assert (said.code, said.lines) == (1, [])
        assert f"process {os.getpid()}" in said.err
        assert "skyagent down" in said.err


async def test_a_rebuild_where_no_journal_is_says_so_and_makes_none(tmp_path: Path) -> None:
    said = await audit(Settings(data_dir=tmp_path / "nothing"), "rebuild")
    assert said.code == 1
    assert "SKYAGENT_DATA_DIR" in said.err
    assert not (tmp_path / "nothing").exists()


COLUMNS = ("run_id", "seq", "append_id", "epoch", "kind", "ts_ms", "payload", "payload_digest", "prev_hash", "hash")


async def test_audit_verify_names_the_run_the_event_and_the_column_of_a_flipped_byte(settings: Settings) -> None:
    row = next(row for row in (await sql(settings))["run_events"] if row[1] == 1_234)
    payload = row[COLUMNS.index("payload")]
    async with open_database(settings.journal_path) as database:
        await change(database, "payload", flipped(payload, random.Random(1)), row[:2])
    said = await audit(settings, "verify", "--offline")
    assert said.code == 1
    (found,) = [line for line in said.lines if not line["intact"]]
    assert (found["runId"], found["firstBadSeq"]) == (row[0], 1_234)
    assert found["detail"] == "event 1234 has another payload than was written: column payload was changed"
    assert len(said.lines) == len(LENGTHS)


async def test_among_ten_thousand_mixed_events_every_sampled_flip_is_located(settings: Settings) -> None:
    chance = random.Random(2)
    async with open_database(settings.journal_path) as database, open_journal(database, clock=SystemClock()) as journal:
        events = (await dump(database))["run_events"]
        taken = {row[:2] for row in events}
        for _ in range(150):
            row, place = chance.choice(events), chance.randrange(len(COLUMNS))
            wrong = flipped(row[place], chance)
            moved = (*row[:place], wrong, *row[place + 1 :])
            if moved == row or (place < 2 and moved[:2] in taken):
                continue  # nothing to flip; or the key is another event's, and the database itself refuses it
            await change(database, COLUMNS[place], wrong, row[:2])
            found = await journal.verify(str(row[0]))
            assert (found.run_id, found.bad_seq) == (row[0], row[1]), (COLUMNS[place], found)
            assert place < 2 or COLUMNS[place] in found.reason
            await change(database, COLUMNS[place], row[place], moved[:2])
        assert [(await journal.verify(head.run_id)).bad_seq for head in await journal.heads()] == [None] * len(LENGTHS)


def flipped(value: object, chance: random.Random) -> object:
    """The value with one of its bytes another one; numbers have the eight bytes that SQLite stores at most."""
    mask = chance.randrange(1, 256)
    if isinstance(value, int):
        return value ^ (mask & 0x7F or 1) << 8 * chance.randrange(7)
    if isinstance(value, str):
        at = chance.randrange(len(value))
        return value[:at] + chr(ord(value[at]) ^ (mask & 0x7F or 1)) + value[at + 1 :]
    assert isinstance(value, bytes | None)
    if not value:
        return value
    at = chance.randrange(len(value))
    return value[:at] + bytes([value[at] ^ mask]) + value[at + 1 :]


async def change(database: Database, column: str, value: object, key: tuple[object, ...]) -> None:
    statement = f"UPDATE run_events SET {column} = ? WHERE run_id = ? AND seq = ?"
    await database.transact(lambda connection: connection.exec_driver_sql(statement, (value, *key)).close())
