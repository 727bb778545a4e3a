"""The index of artifacts, and which tenant may read which bytes."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from control.agentfs.folders import RunFolders
from control.agentfs.schema import artifacts, blob_grants
from infra.clock import Clock
from infra.db import Database, shared_database
from infra.log import event_logger
from infra.mesh import Runtime
from skyagent.artifact.v1 import artifact_service_pb2 as pb
from skyagent.common.v1 import blob_pb2
from skyagent.run.v1 import event_pb2 as ev

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class Recorded:
    """An artifact of a run, as its journal names it."""

    tenant: str
    run_id: str
    artifact: ev.ArtifactRecorded


@dataclass(frozen=True, slots=True)
class ArtifactQuery:
    """Which artifacts of a tenant, newest first; the token is the last id of the page before."""

    tenant: str
    run_id: str = ""
    page_size: int = 50
    page_token: str = ""


@dataclass(frozen=True, slots=True)
class ArtifactPage:
    """Some artifacts, and how to ask for the next ones."""

    artifacts: tuple[pb.Artifact, ...]
    next_page_token: str


class AgentFs:
    """What runs took and made. Recording the same thing again changes nothing."""

    def __init__(self, database: Database, folders: RunFolders, clock: Clock) -> None:
        self._database, self._folders, self._clock = database, folders, clock

    async def record(self, recorded: Recorded) -> None:
        """Lists an artifact and shows it in its run's folder."""
        artifact, blob = recorded.artifact, recorded.artifact.blob
        row = {
            "artifact_id": artifact.artifact_id,
            "tenant": recorded.tenant,
            "run_id": recorded.run_id,
            "step_id": artifact.step_id,
            "name": artifact.name,
            "media_type": blob.media_type,
            "role": blob.role,
            "digest": blob.digest,
            "size": blob.size,
            "created_ms": self._clock.now_ms(),
        }
        listed = insert(artifacts).values(row).on_conflict_do_nothing()
        await self._database.transact(lambda connection: _insert(connection, listed, [blob], recorded.tenant))
        await self._show(recorded.run_id, "artifacts", [(artifact.name, blob.digest)])

    async def grant(self, tenant: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
        """Lets a tenant read bytes that it uploaded or that one of its runs names."""
        granted = [blob for blob in blobs if blob.digest]
        if granted:
            await self._database.transact(lambda connection: _grant(connection, tenant, granted))

    async def show_input(self, run_id: str, name: str, digest: str) -> None:
        """Shows a file that a run was given in the run's folder."""
        await self._show(run_id, "inputs", [(name, digest)])

    async def show_evidence(self, run_id: str, prefix: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
        """Shows what a step saw in the run's folder, as "00042-screenshot.jpg"."""
        shown = [(f"{prefix}-{blob.role or 'file'}{_suffix(blob)}", blob.digest) for blob in blobs if blob.digest]
        await self._show(run_id, "observations", shown)

    async def _show(self, run_id: str, part: str, shown: list[tuple[str, str]]) -> None:
        """Only a view: a full disk must neither stop the run for it nor refuse a mission that is durable."""
        try:
            await asyncio.to_thread(self._link_all, run_id, part, shown)
        except OSError as error:
            log.warning("agentfs.not_shown", run_id=run_id, part=part, error=error)

    def _link_all(self, run_id: str, part: str, shown: list[tuple[str, str]]) -> None:
        for name, digest in shown:
            self._folders.link(run_id, part, name, digest)

    async def media_type(self, tenant: str, digest: str) -> str | None:
        """The media type of bytes that a tenant may read; nothing when it may not."""
        query = sa.select(blob_grants.c.media_type).where(
            blob_grants.c.tenant == tenant, blob_grants.c.digest == digest
        )
        return await self._database.read(lambda connection: connection.execute(query).scalar_one_or_none())

    async def artifact(self, tenant: str, artifact_id: str) -> pb.Artifact | None:
        """One artifact of a tenant."""
        query = sa.select(artifacts).where(artifacts.c.tenant == tenant, artifacts.c.artifact_id == artifact_id)
        row = await self._database.read(lambda connection: connection.execute(query).mappings().one_or_none())
        return None if row is None else _artifact(row)

    async def artifacts(self, query: ArtifactQuery) -> ArtifactPage:
        """A page of a tenant's artifacts, newest first."""
        wanted = sa.select(artifacts).where(artifacts.c.tenant == query.tenant)
        if query.run_id:
            wanted = wanted.where(artifacts.c.run_id == query.run_id)
        if query.page_token:
            wanted = wanted.where(artifacts.c.artifact_id < query.page_token)
        wanted = wanted.order_by(artifacts.c.artifact_id.desc()).limit(query.page_size + 1)
        rows = await self._database.read(lambda connection: connection.execute(wanted).mappings().all())
        shown = tuple(_artifact(row) for row in rows[: query.page_size])
        return ArtifactPage(shown, shown[-1].artifact_id if len(rows) > query.page_size else "")


@asynccontextmanager
async def shared_agentfs(runtime: Runtime) -> AsyncGenerator[AgentFs]:
    """The process's one index."""
    database = await runtime.shared(shared_database)
    folders = RunFolders(runtime.settings.agentfs_dir, runtime.settings.blobs_dir)
    yield AgentFs(database, folders, runtime.clock)


def _suffix(blob: blob_pb2.BlobRef) -> str:
    return mimetypes.guess_extension(blob.media_type.partition(";")[0]) or ""


def _insert(connection: sa.Connection, statement: sa.Executable, blobs: list[blob_pb2.BlobRef], tenant: str) -> None:
    connection.execute(statement)
    _grant(connection, tenant, blobs)


def _grant(connection: sa.Connection, tenant: str, blobs: list[blob_pb2.BlobRef]) -> None:
    rows = [{"tenant": tenant, "digest": blob.digest, "media_type": blob.media_type} for blob in blobs]
    connection.execute(insert(blob_grants).on_conflict_do_nothing(), rows)


def _artifact(values: sa.RowMapping) -> pb.Artifact:
    blob = blob_pb2.BlobRef(
        digest=values["digest"], size=values["size"], media_type=values["media_type"], role=values["role"]
    )
    made = pb.Artifact(
        artifact_id=values["artifact_id"],
        run_id=values["run_id"],
        step_id=values["step_id"],
        name=values["name"],
        blob=blob,
    )
    made.create_time.FromMilliseconds(values["created_ms"])
    return made
