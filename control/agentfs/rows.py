"""All SQL of the index of artifacts, and what in it follows from journals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import sqlalchemy as sa

from control.agentfs.schema import artifacts, blob_grants
from infra.db import insert_absent, insert_into
from infra.ids import ulid_ms
from skyagent.common.v1 import blob_pb2
from skyagent.run.v1 import event_pb2 as ev

ArtifactRow = Mapping[str, str | int]


def artifact_row(tenant: str, run_id: str, artifact: ev.ArtifactRecorded) -> ArtifactRow:
    """An artifact as it is listed: all of it follows from its event, so that the list can be made again."""
    blob = artifact.blob
    return {
        "artifact_id": artifact.artifact_id,
        "tenant": tenant,
        "run_id": run_id,
        "step_id": artifact.step_id,
        "name": artifact.name,
        "media_type": blob.media_type,
        "role": blob.role,
        "digest": blob.digest,
        "size": blob.size,
        "created_ms": ulid_ms(artifact.artifact_id),
    }


def list_artifact(connection: sa.Connection, row: ArtifactRow) -> None:
    """Listing the same artifact again changes nothing."""
    insert_absent(connection, artifacts, [row])


def grant_given(connection: sa.Connection, tenant: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
    """Grants bytes that a person gave: only this row says so."""
    for blob in blobs:
        given = insert_into(connection, blob_grants).values(_granted(tenant, blob, given=True))
        said = {"media_type": given.excluded.media_type, "given": sa.true()}
        known = given.on_conflict_do_update(
            index_elements=["tenant", "digest"], set_=said, where=blob_grants.c.given == sa.false()
        )
        connection.execute(known)


def grant_named(connection: sa.Connection, tenant: str, blobs: Iterable[blob_pb2.BlobRef]) -> None:
    """Grants bytes that an event of the tenant names; in whatever order the events come, the row becomes the same."""
    for blob in blobs:
        named = insert_into(connection, blob_grants).values(_granted(tenant, blob, given=False))
        before, now = blob_grants.c.media_type, named.excluded.media_type
        least = sa.case((before < now, before), else_=now)
        known = named.on_conflict_do_update(
            index_elements=["tenant", "digest"], set_={"media_type": least}, where=blob_grants.c.given == sa.false()
        )
        connection.execute(known)


def drop_derived(connection: sa.Connection, run_id: str) -> None:
    """Forgets what a run made; what its tenant may read is forgotten for all runs together."""
    connection.execute(sa.delete(artifacts).where(artifacts.c.run_id == run_id))


def drop_erased(connection: sa.Connection, run_id: str, payloads: Iterable[bytes]) -> None:
    """Forgets artifacts whose events are erased, whose payloads these are."""
    bodies = (ev.EventBody.FromString(payload) for payload in payloads)
    gone = [body.artifact_recorded.artifact_id for body in bodies if body.HasField("artifact_recorded")]
    of_it = sa.delete(artifacts).where(artifacts.c.run_id == run_id)
    connection.execute(of_it.where(artifacts.c.artifact_id.in_(gone)))


def artifact_digests(connection: sa.Connection) -> Iterable[bytes]:
    """The digests of everything that is listed."""
    return (digest.encode() for digest in connection.execute(sa.select(artifacts.c.digest)).scalars())


def given_digests(connection: sa.Connection, *, besides: Collection[str]) -> Iterable[bytes]:
    """The digests of what people of other tenants gave."""
    theirs = sa.select(blob_grants.c.digest).where(blob_grants.c.given, blob_grants.c.tenant.not_in(tuple(besides)))
    return (digest.encode() for digest in connection.execute(theirs).scalars())


def drop_grants(connection: sa.Connection, digests: Iterable[str]) -> None:
    """Forgets rights to bytes that are gone."""
    connection.execute(sa.delete(blob_grants).where(blob_grants.c.digest.in_(tuple(digests))))


def drop_named_grants(connection: sa.Connection) -> None:
    """Forgets every right to read that follows from an event."""
    connection.execute(sa.delete(blob_grants).where(blob_grants.c.given == sa.false()))


def _granted(tenant: str, blob: blob_pb2.BlobRef, *, given: bool) -> Mapping[str, str | bool]:
    return {"tenant": tenant, "digest": blob.digest, "media_type": blob.media_type, "given": given}
