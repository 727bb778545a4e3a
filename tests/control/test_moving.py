"""Backup, restore, copy, migrate and verify: on both systems, with runs that were really under way."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection

from control import moving
from control.core.run import FOLD_VERSION
from control.journal import Node, open_journal
from control.moving import Steps
from control.orchestrator.ledger import Ledger
from control.verifying import verify
from evals.end_to_end.skyagent_mesh import free_ports
from execution.executor import Assignment, BlobSink
from execution.noop import NoopExecutor
from infra.blobs import shared_blobs
from infra.db import open_database
from infra.db.copying import Copied, counts_of_file, file_connection
from infra.errors import DataLoss, Precondition, SkyError
from infra.settings import OwnershipSettings, Settings
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1.action_pb2 import Outcome
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from tests.control.orchestrator.harness import CLOCK, IDS, ControlPlane, control_plane, settings_in, worker
from tests.fold.journals import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

STEPS = 40
QUIET = Steps(lambda _copied: None, lambda _looked: None)


class Counting(NoopExecutor):
    """Counts what it does, and after some steps goes on only once it may."""

    def __init__(self, held_after: int = 10_000) -> None:
        super().__init__()
        self.done = Counter[str]()
        self.let_go = asyncio.Event()
        self._held_after = held_after

    async def execute(self, assignment: Assignment, blobs: BlobSink, progress: Callable[[str], None]) -> Outcome:
        self.done[assignment.step_id] += 1
        if len(self.done) > self._held_after:
            await self.let_go.wait()
        return await super().execute(assignment, blobs, progress)


def on_postgres(folder: Path, address: str) -> Settings:
    return settings_in(folder, database_url=SecretStr(address), ownership=OwnershipSettings(ttl=1.0, beat=0.2))


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    if request.param == "sqlite":
        return settings_in(tmp_path / "data")
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return on_postgres(tmp_path / "data", make())


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """An empty place on the same system."""
    if settings.database_url is None:
        return settings_in(tmp_path / "elsewhere")
    make: Callable[[], str] = request.getfixturevalue("new_database")
    return on_postgres(tmp_path / "elsewhere", make())


@dataclass(frozen=True)
class Said:
    code: int
    last: dict[str, object]
    err: str


async def skyagent_db(settings: Settings, *arguments: str) -> Said:
    env = os.environ | {"SKYAGENT_DATA_DIR": str(settings.data_dir), "SKYAGENT_OWNERSHIP__TTL": "1.5"}
    if settings.database_url is not None:
        env["SKYAGENT_DATABASE_URL"] = settings.database_url.get_secret_value()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.cli", "db", *arguments),
        env=env,
        cwd=REPOSITORY,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    lines = out.decode().splitlines()
    return Said(process.returncode or 0, json.loads(lines[-1]) if lines else {}, err.decode())


@asynccontextmanager
async def with_a_run(settings: Settings, steps: int = STEPS) -> AsyncGenerator[tuple[ControlPlane, str]]:
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        yield plane, await plane.start(steps=str(steps))


async def test_a_backup_taken_while_runs_are_written_is_whole_and_goes_on_where_it_is_restored(
    settings: Settings, elsewhere: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "backup.db"
    async with with_a_run(settings) as (plane, run_id):
        await plane.until(run_id, "step_finished")
        taken = await asyncio.to_thread(moving.backup, moving.place_in(settings), file, QUIET)
        ended = await plane.until_ended(run_id, within=40)
        head = await plane.journal.head(run_id)
    assert taken.rows["runs"] == 1
    assert 0 < taken.rows["run_events"] < head.head_seq == ended.seq
    restored = await asyncio.to_thread(moving.restore, file, moving.place_in(elsewhere), QUIET, CLOCK, replace=False)
    assert restored.rows == {**counts_of_file(file), "nodes": 0}
    async with control_plane(elsewhere) as plane, worker(elsewhere, plane.runtime.address):
        assert (await plane.until_ended(run_id, within=40)).counts.steps_succeeded == STEPS
        again = await plane.journal.head(run_id)
        assert again.log_generation == restored.log_generation > head.log_generation
        assert (await plane.journal.verify(run_id)).bad_seq is None


@pytest.mark.timeout(120)
async def test_a_run_in_flight_moves_from_sqlite_to_postgres_and_ends_there(
    tmp_path: Path, new_database: Callable[[], str]
) -> None:
    (port,) = free_ports(1)
    before = settings_in(tmp_path, listen=f"127.0.0.1:{port}")
    after = on_postgres(tmp_path, new_database()).model_copy(update={"listen": before.listen})
    assert after.database_url is not None
    address, hand = after.database_url.get_secret_value(), Counting(held_after=5)
    async with worker(before, before.listen, hand):
        async with control_plane(before) as plane:
            run_id = await plane.start(steps=str(STEPS))
            await plane.until_state(run_id, lambda state: state.counts.steps_succeeded == 5, within=30)
            refused = await skyagent_db(before, "copy", "--to", address)
            assert (refused.code, "DATA_IN_USE" in refused.err) == (1, True)
        copied = await skyagent_db(before, "copy", "--to", address)
        assert (copied.code, copied.err) == (0, "")
        again = await skyagent_db(before, "copy", "--to", address)
        assert (again.code, "TARGET_NOT_EMPTY" in again.err) == (1, True)
        hand.let_go.set()
        async with control_plane(after) as plane:
            state = await plane.until_ended(run_id, within=40)
            assert (state.phase, state.counts.steps_succeeded) == (ev.RUN_PHASE_SUCCEEDED, STEPS)
    assert set(hand.done.values()) == {1}
    assert len(hand.done) == STEPS
    verified = await skyagent_db(after, "verify")
    assert (verified.code, verified.last["whole"]) == (1, False)  # a run of the harness has no mission
    back = tmp_path / "back" / "journal.db"
    moved = await skyagent_db(after, "copy", "--to", f"sqlite:///{back}")
    assert (moved.code, moved.err) == (0, "")
    assert counts_of_file(back)["run_events"] == state.seq


async def test_a_restore_over_missions_is_refused_and_replacing_keeps_what_was_there(
    settings: Settings, tmp_path: Path
) -> None:
    file, place = tmp_path / "backup.db", moving.place_in(settings)
    async with with_a_run(settings, steps=1) as (plane, run_id):
        await plane.until_ended(run_id)
        await asyncio.to_thread(moving.backup, place, file, QUIET)
        second = await plane.start(steps="1")
        await plane.until_ended(second)
    with pytest.raises(Precondition, match="holds missions already"):
        moving.restore(file, place, QUIET, CLOCK, replace=False)
    first = moving.restore(file, place, QUIET, CLOCK, replace=True)
    again = moving.restore(file, place, QUIET, CLOCK, replace=True)
    assert again.log_generation > first.log_generation
    with moving.seen(place) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one() == 1
    if isinstance(place, Path):
        kept = sorted(settings.data_dir.glob("journal.db.replaced-*"))
        assert [counts_of_file(each)["runs"] for each in kept] == [2, 1]


async def test_a_restore_that_breaks_half_way_has_changed_nothing(settings: Settings, tmp_path: Path) -> None:
    file, place = tmp_path / "backup.db", moving.place_in(settings)
    async with with_a_run(settings, steps=1) as (plane, run_id):
        await plane.until_ended(run_id)
        await asyncio.to_thread(moving.backup, place, file, QUIET)
        await plane.until_ended(await plane.start(steps="1"))

    def breaking(copied: Copied) -> None:
        if copied.table in ("", "runs"):
            raise KeyError(copied.table)

    with pytest.raises(KeyError):
        moving.restore(file, place, Steps(breaking, QUIET.looked), CLOCK, replace=True)
    with pytest.raises(KeyError):
        moving.backup(place, tmp_path / "half.db", Steps(breaking, QUIET.looked))
    assert files_in(tmp_path) == ["backup.db"]
    with moving.seen(place) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one() == 2


async def test_the_log_of_a_database_that_is_gone_is_not_played_into_what_is_restored(tmp_path: Path) -> None:
    settings, file = settings_in(tmp_path / "data"), tmp_path / "backup.db"
    place, log = settings.journal_path, settings.data_dir / "journal.db-wal"
    async with with_a_run(settings, steps=1) as (plane, run_id):
        await plane.until_ended(run_id)
        await asyncio.to_thread(moving.backup, place, file, QUIET)
        await plane.until_ended(await plane.start(steps="1"))
        left = log.read_bytes()
    assert left
    place.unlink()
    log.write_bytes(left)
    moving.restore(file, place, QUIET, CLOCK, replace=False)
    with moving.seen(place) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one() == 1


async def test_a_database_that_cannot_be_read_any_more_is_replaced_and_kept(tmp_path: Path) -> None:
    settings, file = settings_in(tmp_path / "data"), tmp_path / "backup.db"
    place = settings.journal_path
    async with with_a_run(settings, steps=1) as (plane, run_id):
        await plane.until_ended(run_id)
        await asyncio.to_thread(moving.backup, place, file, QUIET)
    damaged = place.read_bytes()[:100] + bytes(2000) + place.read_bytes()[2100:]
    place.write_bytes(damaged)
    with pytest.raises(DataLoss):
        moving.restore(file, place, QUIET, CLOCK, replace=False)
    moving.restore(file, place, QUIET, CLOCK, replace=True)
    with moving.seen(place) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one() == 1
    assert [kept.read_bytes() for kept in settings.data_dir.glob("journal.db.replaced-*")] == [damaged]


async def test_a_restore_that_breaks_at_its_very_end_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, file = settings_in(tmp_path / "data"), tmp_path / "backup.db"
    async with with_a_run(settings, steps=1) as (plane, run_id):
        await plane.until_ended(run_id)
        await asyncio.to_thread(moving.backup, settings.journal_path, file, QUIET)

    def broken(_descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("infra.db.copying.os.fsync", broken)
    with pytest.raises(SkyError):
        moving.restore(file, settings.journal_path, QUIET, CLOCK, replace=True)
    monkeypatch.undo()
    with moving.seen(settings.journal_path) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar_one() == 1


async def test_a_backup_whose_journal_was_changed_is_not_restored(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    async with with_a_run(settings, steps=1) as (plane, run_id):
        await plane.until_ended(run_id)
        await asyncio.to_thread(moving.backup, moving.place_in(settings), file, QUIET)
    change(file, "UPDATE run_events SET payload = x'00' WHERE seq = 3")
    with pytest.raises(DataLoss, match=r"event 3 has another payload than was written.*Nothing was changed"):
        moving.restore(file, moving.place_in(settings), QUIET, CLOCK, replace=True)


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.is_file()]


def change(file: Path, *statements: str) -> None:
    with file_connection(file) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        ("UPDATE run_events SET ts_ms = ts_ms + 1 WHERE seq = 2", "journal"),
        ("UPDATE runs SET head_seq = head_seq + 1", "journal"),
        ("UPDATE run_projections SET state = 'RUN_PHASE_FAILED'", "projection"),
        ("UPDATE runs SET terminal = 0", "projection"),
        ("UPDATE snapshots SET state = x'00'", "snapshot"),
        ("UPDATE run_events SET run_id = 'nobody' WHERE seq = 2", "relation"),
        ("DELETE FROM missions", "relation"),
    ],
)
async def test_verify_names_what_is_not_as_it_was_written(whole: Path, damage: str, what: str) -> None:
    change(whole, damage)
    with moving.seen(whole) as connection:
        assert what in {hurt.what for hurt in verify(connection, None, QUIET.looked).hurts}


@pytest.fixture
async def whole(tmp_path: Path) -> Path:
    """The database of a run that has ended, with its mission."""
    settings = settings_in(tmp_path / "data")
    async with with_a_run(settings, steps=1) as (plane, run_id):
        state = await plane.until_ended(run_id)
    mission = (
        f"INSERT INTO missions VALUES ('{state.mission_id}', 'default', 'ann', x'', 1, NULL, '', '{run_id}', 1, NULL)"
    )
    change(settings.journal_path, mission)
    with moving.seen(settings.journal_path) as connection:
        assert verify(connection, settings.blobs_dir, QUIET.looked).hurts == ()
    return settings.journal_path


async def test_verify_reads_every_byte_that_an_event_names(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane:
        blobs = await plane.runtime.shared(shared_blobs)
        stored = await blobs.put(b"evidence")
        run_id = await plane.start(steps="1")
        made = ev.ArtifactRecorded(artifact_id="A", name="a.txt", blob=BlobRef(digest=stored.digest, size=8))
        ledger = await plane.until(run_id, "run_blocked")
        assert ledger.seq
        artifact = ev.EventBody(artifact_recorded=made)
    await appended(settings, run_id, artifact)
    (path,) = settings.blobs_dir.glob("b3/*/*")
    for data, found in (
        (b"evidence", ()),
        (b"evidencE", ("the stored bytes are not what was stored",)),
        (None, ("No such",)),
    ):
        path.write_bytes(data) if data else path.unlink()
        with moving.seen(settings.journal_path) as connection:
            hurts = [hurt for hurt in verify(connection, settings.blobs_dir, QUIET.looked).hurts if hurt.what == "blob"]
        assert [hurt.where for hurt in hurts] == [stored.digest] * len(found)
        assert all(word in hurt.detail for hurt, word in zip(hurts, found, strict=True))


async def appended(settings: Settings, run_id: str, body: ev.EventBody) -> None:
    """One more event of a run, by an owner of its own."""
    async with open_database(settings.journal_path) as database, open_journal(database, clock=CLOCK) as journal:
        (head,) = await journal.claim(Node("test", IDS.uuid()), fold_version=FOLD_VERSION, limit=1)
        assert head.run_id == run_id
        ledger = Ledger(journal, CLOCK, IDS, head)
        await ledger.load()
        await ledger.commit((body,))


async def test_migrate_says_what_is_missing_and_then_applies_it(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)

    def back(connection: Connection) -> None:
        connection.exec_driver_sql("ALTER TABLE blob_grants DROP COLUMN given")
        connection.exec_driver_sql(
            "UPDATE alembic_version SET version_num = 'agentfs_0001' WHERE version_num = 'agentfs_0002'"
        )

    async with open_database(settings.journal_path) as database:
        await database.transact(back)
    with pytest.raises(Precondition, match="skyagent db migrate"), moving.seen(settings.journal_path):
        pass
    for arguments in (("migrate", "--dry-run"), ("migrate",)):
        said = await skyagent_db(settings, *arguments)
        assert (said.code, said.last["missing"]) == (0, ["agentfs_0002"])
    assert (await skyagent_db(settings, "migrate")).last["missing"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("copy", "--to", "mysql://somewhere/else"), 2, "INVALID_ARGUMENT"),
        (("copy", "--to", "postgresql://nobody@127.0.0.1:1/nothing"), 69, "DATABASE_UNREACHABLE"),
        (("restore", "no-such-file.db"), 1, "NO_BACKUP"),
        (("backup", "backup.db"), 1, "NO_DATABASE"),
        (("verify",), 1, "NO_DATABASE"),
    ],
)
async def test_what_cannot_be_done_is_refused_by_name(
    tmp_path: Path, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    said = await skyagent_db(Settings(data_dir=tmp_path / "nothing"), *arguments)
    assert (said.code, reason in said.err) == (code, True), said.err


PAUSE, RESUME = cmd.Command(pause=cmd.PauseCommand()), cmd.Command(resume=cmd.ResumeCommand())


async def test_a_run_of_which_a_worker_has_done_more_than_the_backup_knows_waits_for_a_person(tmp_path: Path) -> None:
    settings, file, hand = settings_in(tmp_path), tmp_path / "backup.db", Counting()
    async with control_plane(settings, services=()) as plane:
        run_id = await plane.start(steps=str(STEPS))  # nothing is planned yet, so steps will have other ids
    moving.backup(settings.journal_path, file, QUIET)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address, hand):
        await plane.until(run_id, "step_validated")
        await plane.command(run_id, PAUSE)
        paused = await plane.until_state(run_id, lambda state: state.phase == ev.RUN_PHASE_PAUSED)
    done = len(hand.done)
    assert 0 < done < STEPS
    moving.restore(file, settings.journal_path, QUIET, CLOCK, replace=True)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address, hand):
        parked = await plane.until_state(run_id, lambda state: "has done step" in state.blocked_detail)
        acted = [record.node.node_id for record in paused.nodes if record.attempts]
        assert any(step_id in parked.blocked_detail for step_id in acted)
        assert (parked.blocked_reason, parked.counts.attempts, len(hand.done)) == ("LOG_BEHIND", 0, done)
        await plane.command(run_id, RESUME)
        await plane.until(run_id, "step_validated")
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address, hand):
        state = await plane.until_ended(run_id, within=40)  # a person is asked once
        assert (state.counts.steps_succeeded, (await plane.kinds(run_id)).count("run_unblocked")) == (STEPS, 1)
