"""The index of artifacts and the folders: asked twice, asked at once, and with no room left."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from control.agentfs import AgentFs, ArtifactQuery, Recorded, RunFolders
from infra.blobs import BlobStore, open_blobs
from infra.clock import SystemClock
from infra.db import open_database
from infra.ids import system_ids
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.run.v1.event_pb2 import ArtifactRecorded

CLOCK = SystemClock()
IDS = system_ids(CLOCK)


@asynccontextmanager
async def _opened(folder: Path) -> AsyncGenerator[tuple[AgentFs, BlobStore]]:
    folders = RunFolders(folder / "agentfs", folder / "blobs")
    async with open_database(folder / "journal.db") as database, open_blobs(folder / "blobs") as blobs:
        yield AgentFs(database, folders), blobs


async def _recorded(blobs: BlobStore, name: str, data: bytes) -> Recorded:
    blob = await blobs.put(data)
    ref = BlobRef(digest=blob.digest, size=blob.size, media_type="text/csv")
    return Recorded("default", IDS.ulid(), ArtifactRecorded(artifact_id=IDS.ulid(), name=name, blob=ref))


async def test_recording_an_artifact_again_changes_nothing(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (agentfs, blobs):
        recorded = await _recorded(blobs, "outcome.csv", b"a")
        await agentfs.record(recorded)
        first = await agentfs.artifacts(ArtifactQuery("default"))
        await agentfs.record(recorded)
        assert await agentfs.artifacts(ArtifactQuery("default")) == first
    folder = tmp_path / "agentfs" / "missions" / recorded.run_id / "artifacts"
    assert [path.name for path in folder.iterdir()] == ["outcome.csv"]


async def test_an_input_that_is_shown_twice_at_once_is_there_once(tmp_path: Path) -> None:
    async with _opened(tmp_path) as (agentfs, blobs):
        blob, run_id = await blobs.put(b"rows"), IDS.ulid()
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(agentfs.show_input(run_id, "rows.csv", blob.digest))
    inputs = tmp_path / "agentfs" / "missions" / run_id / "inputs"
    assert [path.name for path in inputs.iterdir()] == ["rows.csv"]


def _taken_by(other: str) -> Callable[[Path, Path], None]:
    """A link that finds its name taken, at the last moment, by a link to other bytes."""

    def link(source: Path, target: Path) -> None:
        if target.name == "a.txt":
            os.symlink(source.parents[1] / other[3:5] / other[3:], target)  # noqa: PTH211 -- `link` itself is replaced
            raise FileExistsError
        os.symlink(source, target)  # noqa: PTH211

    return link


async def test_a_name_that_is_taken_at_the_last_moment_never_overwrites_a_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _opened(tmp_path) as (agentfs, blobs):
        first, second, run_id = await blobs.put(b"first"), await blobs.put(b"second"), IDS.ulid()
        monkeypatch.setattr("control.agentfs.folders.os.link", _taken_by(first.digest))
        await agentfs.show_input(run_id, "a.txt", second.digest)
        assert await blobs.get(first.digest) == b"first"
    inputs = tmp_path / "agentfs" / "missions" / run_id / "inputs"
    assert {path.name: path.read_bytes() for path in inputs.iterdir()} == {"a.txt": b"first", "a-2.txt": b"second"}


@pytest.mark.parametrize("name", ["ä" * 300 + ".csv", "../../up.csv"])
async def test_a_name_that_no_file_system_takes_is_shortened(tmp_path: Path, name: str) -> None:
    async with _opened(tmp_path) as (agentfs, blobs):
        recorded = await _recorded(blobs, name, b"a")
        await agentfs.record(recorded)
    [path] = (tmp_path / "agentfs" / "missions" / recorded.run_id / "artifacts").iterdir()
    assert path.name.endswith(".csv")
    assert len(path.name.encode()) <= 200


async def test_what_cannot_be_shown_is_listed_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "agentfs").write_text("a file where the folder should be")
    async with _opened(tmp_path) as (agentfs, blobs):
        recorded = await _recorded(blobs, "outcome.csv", b"a")
        await agentfs.record(recorded)
        await agentfs.show_input(recorded.run_id, "rows.csv", recorded.artifact.blob.digest)
        assert [one.name for one in (await agentfs.artifacts(ArtifactQuery("default"))).artifacts] == ["outcome.csv"]
