"""The facts of health as `skyagent doctor` sees them: of the mesh that runs, else of the journal that it would open."""

from __future__ import annotations

import grpc
from sqlalchemy.exc import DBAPIError

from control.journal import open_journal
from control.journal.looks import look_at_journal
from gateway.doctor import Finding, Health
from gateway.supervisor.lock import holder
from infra.channels import dial
from infra.clock import SystemClock
from infra.db import open_database
from infra.db.engine import reading_engine
from infra.db.failure import corrupt, storage_failure
from infra.db.revisions import standing
from infra.errors import SkyError
from infra.health import State
from infra.settings import Settings
from infra.status import from_rpc_error
from infra.vital_signs import look_at_disk
from skyagent.mesh.v1 import mesh_service_pb2 as pb
from skyagent.mesh.v1.mesh_service_pb2_grpc import MeshServiceStub

SECONDS = 5.0
_OF_STATE = {State.WELL: Health.WELL, State.DEGRADED: Health.WARNING, State.FAILING: Health.ILL}
_OF_ANSWER = {
    pb.HEALTH_STATE_WELL: Health.WELL,
    pb.HEALTH_STATE_DEGRADED: Health.WARNING,
    pb.HEALTH_STATE_FAILING: Health.ILL,
}


async def facts(settings: Settings) -> list[Finding]:
    """What the control plane says of itself when one runs; else room for data, and whether the journal takes writes."""
    if holder(settings.up_lock_path):
        return await _told(settings)
    disk = await look_at_disk(settings.data_dir)
    return [Finding("disk", _OF_STATE[disk.state], disk.detail), await _journal(settings)]


async def _told(settings: Settings) -> list[Finding]:
    async with dial(settings.listen, deadline=SECONDS) as channel:
        try:
            answer = await MeshServiceStub(channel).GetHealth(pb.GetHealthRequest())
        except grpc.aio.AioRpcError as error:
            told = f"a mesh runs, and its control plane does not answer: {from_rpc_error(error).message}"
            return [Finding("control plane", Health.ILL, told, "`skyagent status` tells why")]
    return [Finding(fact.name, _OF_ANSWER[fact.state], fact.detail) for fact in answer.facts]


async def _journal(settings: Settings) -> Finding:
    """Opens what is there as the mesh would, and writes; nothing is made, and nothing brought to another schema."""
    path = settings.journal_path
    if settings.database_url is not None:
        return Finding("journal", Health.WELL, "on a PostgreSQL, which is looked at while a control plane runs")
    if not path.is_file():
        return Finding("journal", Health.WELL, "made by the first `skyagent up`")
    try:
        missing = _missing(settings)
        if missing:
            return Finding("journal", Health.WELL, f"the next `skyagent up` brings it from {missing} to this version")
        async with open_database(path) as database, open_journal(database, clock=SystemClock()) as journal:
            found = await look_at_journal(journal)
    except SkyError as error:
        return Finding("journal", Health.ILL, error.message)
    return Finding("journal", _OF_STATE[found.state], f"{path} {found.detail}")


def _missing(settings: Settings) -> str:
    """The first schema revision that the file lacks; empty when it has all."""
    path = settings.journal_path
    engine = reading_engine(path, busy_ms=int(SECONDS * 1000), connections=1)
    try:
        with engine.connect() as connection:
            return next(iter(standing(connection).missing), "")
    except DBAPIError as error:
        raise storage_failure(error, path) or corrupt(path, str(error.orig)) from error
    finally:
        engine.dispose()
