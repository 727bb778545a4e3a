"""ArtifactService: bytes go to and come from the blob store; the index says who may read which, and what runs made."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

import grpc
from google.api.httpbody_pb2 import HttpBody

from control.agentfs import AgentFs, ArtifactQuery, shared_agentfs
from control.journal import DATABASE
from infra.auth import caller
from infra.blobs import BlobStore, shared_blobs
from infra.errors import InvalidArgument, NotFound, Unimplemented, Violation
from infra.mesh import Register, Runtime, Service
from skyagent.artifact.v1 import artifact_service_pb2 as pb
from skyagent.artifact.v1 import artifact_service_pb2_grpc as rpc
from skyagent.common.v1.blob_pb2 import BlobRef

Context = grpc.aio.ServicerContext[object, object]

_OCTETS = "application/octet-stream"
_TOKEN = r"[A-Za-z0-9!#$&^_.+-]{1,127}"  # noqa: S105  # RFC 6838, not a secret
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(;\s*{_TOKEN}=({_TOKEN}|\"[^\"\\\x00-\x1f\x7f]*\"))*")


class ArtifactServicer(rpc.ArtifactServiceServicer):
    """A digest is readable by a tenant only if that tenant uploaded it or one of its runs recorded it."""

    def __init__(self, blobs: BlobStore, agentfs: AgentFs) -> None:
        self._blobs = blobs
        self._agentfs = agentfs

    async def Upload(self, request_iterator: AsyncIterator[pb.UploadRequest], context: Context) -> pb.UploadResponse:
        header = await _header(request_iterator)
        media_type = _media_type(header.media_type)
        stored = await self._store(_pieces(request_iterator), media_type, expected=header.digest or None)
        return pb.UploadResponse(blob=stored)

    async def UploadFile(self, request: pb.UploadFileRequest, context: Context) -> pb.UploadFileResponse:
        return pb.UploadFileResponse(blob=await self._store(request.data, _media_type(request.media_type)))

    async def Download(self, request: pb.DownloadRequest, context: Context) -> AsyncGenerator[pb.DownloadResponse]:
        media_type = await self._readable(request.digest)
        size = await self._blobs.size(request.digest)
        blob = BlobRef(digest=request.digest, size=size, media_type=media_type)
        pieces = self._blobs.stream(request.digest, start=request.offset, length=request.length or None)
        yield pb.DownloadResponse(blob=blob)
        async for piece in pieces:
            yield pb.DownloadResponse(data=piece)

    async def ReadBlob(self, request: pb.ReadBlobRequest, context: Context) -> AsyncGenerator[HttpBody]:
        media_type = await self._readable(request.digest)
        empty = True
        async for piece in self._blobs.stream(request.digest):
            yield HttpBody(content_type=media_type, data=piece)
            empty = False
        if empty:
            yield HttpBody(content_type=media_type)

    async def GetArtifact(self, request: pb.GetArtifactRequest, context: Context) -> pb.GetArtifactResponse:
        found = await self._agentfs.artifact(caller().tenant, request.artifact_id)
        if found is None:
            raise NotFound(
                "ARTIFACT_NOT_FOUND",
                f"artifact {request.artifact_id!r} does not exist; list them with `skyagent artifacts ls`",
                artifact_id=request.artifact_id,
            )
        return pb.GetArtifactResponse(artifact=found)

    async def ListArtifacts(self, request: pb.ListArtifactsRequest, context: Context) -> pb.ListArtifactsResponse:
        query = ArtifactQuery(caller().tenant, request.run_id, request.page_size or 50, request.page_token)
        page = await self._agentfs.artifacts(query)
        return pb.ListArtifactsResponse(artifacts=page.artifacts, next_page_token=page.next_page_token)

    async def SignArtifact(self, request: pb.SignArtifactRequest, context: Context) -> NoReturn:
        raise Unimplemented("NOT_YET", "links without a token are not made yet; read the blob with your token")

    async def _store(
        self, data: bytes | AsyncGenerator[bytes], media_type: str, *, expected: str | None = None
    ) -> BlobRef:
        blob = await self._blobs.put(data, expected=expected)
        stored = BlobRef(digest=blob.digest, size=blob.size, media_type=media_type)
        await self._agentfs.give(caller().tenant, stored)
        return stored

    async def _readable(self, digest: str) -> str:
        """Its media type; NotFound alike for bytes that are not here and for another tenant's."""
        media_type = await self._agentfs.media_type(caller().tenant, digest)
        if media_type is None:
            raise NotFound("BLOB_NOT_FOUND", f"there are no bytes {digest}; upload them first", digest=digest)
        return media_type if _MEDIA_TYPE.fullmatch(media_type) else _OCTETS


async def _header(requests: AsyncIterator[pb.UploadRequest]) -> pb.UploadHeader:
    first = await anext(requests, None)
    if first is None or not first.HasField("header"):
        raise InvalidArgument(Violation("header", "the first message of an upload names what comes: send it first"))
    return first.header


async def _pieces(requests: AsyncIterator[pb.UploadRequest]) -> AsyncGenerator[bytes]:
    async for request in requests:
        if request.HasField("header"):
            raise InvalidArgument(Violation("header", "an upload has one header, and then only data"))
        yield request.data


def _media_type(given: str) -> str:
    if given and not _MEDIA_TYPE.fullmatch(given):
        raise InvalidArgument(Violation("media_type", f'{given!r} is no media type: write it like "text/csv"'))
    return given or _OCTETS


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncGenerator[Register]:
    servicer = ArtifactServicer(await runtime.shared(shared_blobs), await runtime.shared(shared_agentfs))
    yield lambda server: rpc.add_ArtifactServiceServicer_to_server(servicer, server)


SERVICE = Service("artifact-service", (pb.DESCRIPTOR.services_by_name["ArtifactService"],), _open, needs=(DATABASE,))
