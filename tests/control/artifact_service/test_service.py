from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from control.agentfs import Recorded, shared_agentfs
from control.artifact_service.service import SERVICE
from infra.blobs import shared_blobs
from infra.digest import digest_of
from infra.errors import InvalidArgument, NotFound, OutOfRange, SkyError, Unimplemented
from infra.mesh import Runtime
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.artifact.v1 import artifact_service_pb2 as pb
from skyagent.artifact.v1 import artifact_service_pb2_grpc as rpc
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.run.v1.event_pb2 import ArtifactRecorded
from tests.control.meshed import CallingAs, Serve

DATA = bytes(range(256)) * 5000


@pytest.fixture
async def runtime(serve: Serve) -> Runtime:
    return await serve([SERVICE])


@pytest.fixture
def artifacts(runtime: Runtime, calling_as: CallingAs) -> rpc.ArtifactServiceAsyncStub:
    return rpc.ArtifactServiceStub(calling_as(runtime))


@pytest.fixture
def stranger(runtime: Runtime, calling_as: CallingAs) -> rpc.ArtifactServiceAsyncStub:
    return rpc.ArtifactServiceStub(calling_as(runtime, tenant="other"))


async def _requests(data: bytes, **header: str) -> AsyncIterator[pb.UploadRequest]:
    yield pb.UploadRequest(header=pb.UploadHeader(**header))  # pyright: ignore[reportArgumentType]
    for start in range(0, len(data), 1 << 20):
        yield pb.UploadRequest(data=data[start : start + (1 << 20)])


async def _bytes(answer: AsyncIterable[pb.DownloadResponse]) -> tuple[BlobRef, bytes]:
    pieces = [piece async for piece in answer]
    return pieces[0].blob, b"".join(piece.data for piece in pieces)


async def _refusal(answer: AsyncIterable[pb.DownloadResponse] | AsyncIterable[HttpBody]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        _ = [piece async for piece in answer]
    return from_rpc_error(caught.value)


async def _recorded(runtime: Runtime, name: str, data: bytes, tenant: str = "default") -> Recorded:
    blob = await (await runtime.shared(shared_blobs)).put(data)
    ref = BlobRef(digest=blob.digest, size=blob.size, media_type="text/csv", role="artifact")
    artifact = ArtifactRecorded(artifact_id=runtime.ids.ulid(), name=name, blob=ref)
    recorded = Recorded(tenant, runtime.ids.ulid(), artifact)
    await (await runtime.shared(shared_agentfs)).record(recorded)
    return recorded


async def test_what_was_uploaded_in_pieces_comes_back_whole(artifacts: rpc.ArtifactServiceAsyncStub) -> None:
    stored = (await artifacts.Upload(_requests(DATA, media_type="text/csv", name="a.csv"))).blob
    assert stored == BlobRef(digest=digest_of(DATA), size=len(DATA), media_type="text/csv")
    assert await _bytes(artifacts.Download(pb.DownloadRequest(digest=stored.digest))) == (stored, DATA)


async def test_a_part_of_the_bytes_can_be_asked_for(artifacts: rpc.ArtifactServiceAsyncStub) -> None:
    stored = (await artifacts.UploadFile(pb.UploadFileRequest(data=DATA))).blob
    assert stored.media_type == "application/octet-stream"
    request = pb.DownloadRequest(digest=stored.digest, offset=1000, length=300_000)
    assert (await _bytes(artifacts.Download(request)))[1] == DATA[1000:301_000]
    beyond = pb.DownloadRequest(digest=stored.digest, offset=len(DATA) + 1)
    assert isinstance(await _refusal(artifacts.Download(beyond)), OutOfRange)


async def test_bytes_that_are_not_as_announced_are_not_kept(
    artifacts: rpc.ArtifactServiceAsyncStub, runtime: Runtime
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await artifacts.Upload(_requests(b"other", digest=digest_of(b"announced")))
    assert isinstance(from_rpc_error(caught.value), InvalidArgument)
    assert not await (await runtime.shared(shared_blobs)).exists(digest_of(b"other"))


async def test_an_upload_begins_with_its_header_and_has_one(artifacts: rpc.ArtifactServiceAsyncStub) -> None:
    async def without() -> AsyncIterator[pb.UploadRequest]:
        yield pb.UploadRequest(data=b"x")

    async def twice() -> AsyncIterator[pb.UploadRequest]:
        yield pb.UploadRequest(header=pb.UploadHeader())
        yield pb.UploadRequest(header=pb.UploadHeader())

    for requests in (without(), twice()):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await artifacts.Upload(requests)
        error = from_rpc_error(caught.value)
        assert isinstance(error, InvalidArgument)
        assert [violation.field for violation in error.violations] == ["header"]


@pytest.mark.parametrize("media_type", ["csv", "text/csv\r\nSet-Cookie: x=1", "text/", "a/b; c"])
async def test_a_media_type_that_is_none_is_refused(artifacts: rpc.ArtifactServiceAsyncStub, media_type: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await artifacts.UploadFile(pb.UploadFileRequest(data=b"x", media_type=media_type))
    assert "media_type" in from_rpc_error(caught.value).message


async def test_a_blob_is_read_as_an_http_body_with_its_media_type(artifacts: rpc.ArtifactServiceAsyncStub) -> None:
    upload = pb.UploadFileRequest(data=DATA, media_type="text/html; charset=utf-8")
    digest = (await artifacts.UploadFile(upload)).blob.digest
    pieces = [piece async for piece in artifacts.ReadBlob(pb.ReadBlobRequest(digest=digest))]
    assert pieces[0].content_type == "text/html; charset=utf-8"
    assert b"".join(piece.data for piece in pieces) == DATA


async def test_an_empty_blob_is_a_body_too(artifacts: rpc.ArtifactServiceAsyncStub) -> None:
    digest = (await artifacts.Upload(_requests(b"", media_type="text/plain"))).blob.digest
    pieces = [piece async for piece in artifacts.ReadBlob(pb.ReadBlobRequest(digest=digest))]
    assert [(piece.content_type, piece.data) for piece in pieces] == [("text/plain", b"")]


async def test_another_tenants_bytes_look_as_if_they_were_not_there(
    artifacts: rpc.ArtifactServiceAsyncStub, stranger: rpc.ArtifactServiceAsyncStub
) -> None:
    digest = (await artifacts.UploadFile(pb.UploadFileRequest(data=DATA))).blob.digest
    told = await _refusal(stranger.Download(pb.DownloadRequest(digest=digest)))
    absent = await _refusal(stranger.Download(pb.DownloadRequest(digest=digest_of(b"absent"))))
    assert isinstance(told, NotFound)
    assert told.message.replace(digest, "") == absent.message.replace(digest_of(b"absent"), "")
    assert isinstance(await _refusal(stranger.ReadBlob(pb.ReadBlobRequest(digest=digest))), NotFound)
    await stranger.UploadFile(pb.UploadFileRequest(data=DATA))
    assert (await _bytes(stranger.Download(pb.DownloadRequest(digest=digest))))[1] == DATA


async def test_what_a_run_recorded_is_listed_newest_first_and_readable_to_its_tenant(
    runtime: Runtime, artifacts: rpc.ArtifactServiceAsyncStub, stranger: rpc.ArtifactServiceAsyncStub
) -> None:
    first = await _recorded(runtime, "a.csv", b"a")
    second = await _recorded(runtime, "b.csv", b"b")
    page = await artifacts.ListArtifacts(pb.ListArtifactsRequest(page_size=1))
    rest = await artifacts.ListArtifacts(pb.ListArtifactsRequest(page_token=page.next_page_token))
    assert [one.name for one in (*page.artifacts, *rest.artifacts)] == ["b.csv", "a.csv"]
    assert rest.next_page_token == ""
    of_run = await artifacts.ListArtifacts(pb.ListArtifactsRequest(run_id=first.run_id))
    assert [one.name for one in of_run.artifacts] == ["a.csv"]
    asked = pb.GetArtifactRequest(artifact_id=second.artifact.artifact_id)
    assert (await artifacts.GetArtifact(asked)).artifact.blob == second.artifact.blob
    assert (await _bytes(artifacts.Download(pb.DownloadRequest(digest=second.artifact.blob.digest))))[1] == b"b"
    assert not (await stranger.ListArtifacts(pb.ListArtifactsRequest())).artifacts
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stranger.GetArtifact(asked)
    assert isinstance(from_rpc_error(caught.value), NotFound)


async def test_a_runs_folder_shows_its_artifacts_under_their_names(runtime: Runtime, settings: Settings) -> None:
    recorded = await _recorded(runtime, "../out come.csv", b"a,b\n")
    folder = settings.agentfs_dir / "missions" / recorded.run_id / "artifacts"
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [("_out come.csv", b"a,b\n")]


async def test_links_are_not_made_yet(artifacts: rpc.ArtifactServiceAsyncStub, runtime: Runtime) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await artifacts.SignArtifact(pb.SignArtifactRequest(artifact_id=runtime.ids.ulid()))
    assert isinstance(from_rpc_error(caught.value), Unimplemented)
