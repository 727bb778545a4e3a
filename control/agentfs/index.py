"""The index of artifacts, and which tenant may read which bytes."""

from __future__ import annotations

import asyncio
import mimetypes
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from control.agentfs.folders import RunFolders
from control.agentfs.rows import artifact_row, drop_grants, grant_given, grant_named, list_artifact
from control.agentfs.schema import artifacts, blob_grants
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

    def __init__(self, database: Database, folders: RunFolders) -> None:
        self._database, self._folders = database, folders

    async def record(self, recorded: Recorded) -> None:
        """Lists an artifact and shows it in its run's folder."""
        tenant, run_id, artifact = recorded.tenant, recorded.run_id, recorded.artifact
        row = artifact_row(tenant, run_id, artifact)

        def write(connection: sa.Connection) -> None:
            list_artifact(connection, row)
            grant_named(connection, tenant, [artifact.blob])

        await self._database.transact(write)
        await self._show(run_id, "artifacts", [(artifact.name, artifact.blob.digest)])

    async def grant(self, tenant: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
        """Lets a tenant read bytes that an event of one of its runs names, or is about to."""
        named = [blob for blob in blobs if blob.digest]
        if named:
            await self._database.transact(lambda connection: grant_named(connection, tenant, named))

    async def give(self, tenant: str, blob: blob_pb2.BlobRef) -> None:
        """Lets a tenant read bytes that it gave itself."""
        await self._database.transact(lambda connection: grant_given(connection, tenant, [blob]))

    async def show_input(self, run_id: str, name: str, digest: str) -> None:
        """Shows a file that a run was given in the run's folder."""
        await self._show(run_id, "inputs", [(name, digest)])

    async def show_evidence(self, run_id: str, prefix: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
        """Shows what a step saw in the run's folder, as "00042-screenshot.jpg"."""
        shown = [(f"{prefix}-{blob.role or 'file'}{_suffix(blob)}", blob.digest) for blob in blobs if blob.digest]
        await self._show(run_id, "observations", shown)

    async def hide(self, run_id: str) -> None:
        """Shows nothing of a run any more."""
        await asyncio.to_thread(self._folders.remove, run_id)

    async def forget(self, digests: Iterable[str]) -> None:
        """Nobody may read these any more: they are gone."""
        await self._database.transact(lambda connection: drop_grants(connection, digests))

    async def _show(self, run_id: str, part: str, shown: list[tuple[str, str]]) -> None:
        """Only a view: a full disk must neither stop the run for it nor refuse a mission that is durable."""
        if not shown:
            return
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
    yield AgentFs(database, folders)


def _suffix(blob: blob_pb2.BlobRef) -> str:
    return mimetypes.guess_extension(blob.media_type.partition(";")[0]) or ""


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
