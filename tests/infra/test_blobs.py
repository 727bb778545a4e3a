import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from errno import EACCES, ENOSPC
from pathlib import Path

import pytest

from infra.blobs import Blob, BlobStore, open_blobs
from infra.digest import digest_hex, digest_of
from infra.disk import os_failure
from infra.errors import DataLoss, Exhausted, InvalidArgument, NotFound, OutOfRange, Precondition, SkyError

DATA = bytes(range(256)) * 4000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
async def blobs(root: Path) -> AsyncGenerator[BlobStore]:
    async with open_blobs(root) as opened:
        yield opened


def file_of(root: Path, digest: str) -> Path:
    digits = digest_hex(digest)
    return root / "b3" / digits[:2] / digits


def files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def pieces(data: bytes, size: int = 70_001) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def joined(stream: AsyncGenerator[bytes]) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("data", [b"", b"a", DATA])
async def test_bytes_come_back_by_their_digest(blobs: BlobStore, data: bytes) -> None:
    blob = await blobs.put(data)
    assert blob == Blob(digest_of(data), len(data))
    assert await blobs.get(blob.digest) == data
    assert await joined(blobs.stream(blob.digest)) == data
    assert await blobs.size(blob.digest) == len(data)


async def test_a_stream_of_bytes_is_stored_like_the_whole(blobs: BlobStore) -> None:
    assert await blobs.put(pieces(DATA)) == await blobs.put(DATA)


async def test_known_bytes_are_kept_once(blobs: BlobStore, root: Path) -> None:
    await asyncio.gather(*(blobs.put(DATA) for _ in range(8)))
    assert files(root) == [file_of(root, digest_of(DATA))]


async def test_bytes_that_are_not_what_was_announced_are_refused_and_leave_nothing(
    blobs: BlobStore, root: Path
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await blobs.put(pieces(DATA), expected=digest_of(b"other"))
    assert refused.value.reason == "DIGEST_MISMATCH"
    assert not files(root)


async def test_a_sender_that_breaks_off_leaves_nothing(blobs: BlobStore, root: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await blobs.put(broken())
    assert not files(root)


async def test_what_a_killed_process_left_is_removed_at_the_next_start(root: Path) -> None:
    async with open_blobs(root) as blobs:
        kept = await blobs.put(DATA)
    (root / "staging" / "half").write_bytes(b"half")
    async with open_blobs(root) as blobs:
        assert list((root / "staging").iterdir()) == []
        assert await blobs.get(kept.digest) == DATA


@pytest.mark.parametrize(
    ("start", "length"), [(0, 10), (5, None), (100_000, 400_000), (len(DATA), None), (len(DATA) - 1, 50), (3, 0)]
)
async def test_a_part_is_what_a_slice_would_be(blobs: BlobStore, start: int, length: int | None) -> None:
    blob = await blobs.put(DATA)
    end = None if length is None else start + length
    assert await joined(blobs.stream(blob.digest, start=start, length=length, chunk=1000)) == DATA[start:end]


@pytest.mark.parametrize("start", [-1, len(DATA) + 1])
async def test_a_part_outside_of_the_blob_is_refused(blobs: BlobStore, start: int) -> None:
    blob = await blobs.put(DATA)
    with pytest.raises(OutOfRange):
        await joined(blobs.stream(blob.digest, start=start))


@pytest.mark.parametrize("digest", ["", "b3:", "b3:" + "g" * 64, "sha256:" + "0" * 64, "b3:" + "0" * 63, "../" * 20])
async def test_what_is_no_digest_is_refused(blobs: BlobStore, digest: str) -> None:
    for use in (blobs.get(digest), blobs.size(digest), blobs.exists(digest), blobs.put(b"", expected=digest)):
        with pytest.raises(InvalidArgument) as refused:
            await use
        assert refused.value.reason == "BAD_DIGEST"


async def test_unknown_bytes_are_not_found(blobs: BlobStore) -> None:
    unknown = digest_of(b"unknown")
    assert not await blobs.exists(unknown)
    for use in (blobs.get(unknown), blobs.size(unknown), joined(blobs.stream(unknown))):
        with pytest.raises(NotFound):
            await use


@pytest.mark.parametrize("damage", [DATA[:-1] + b"x", DATA[:-1], DATA + b"x"])
async def test_damaged_bytes_are_never_given_out_as_whole(blobs: BlobStore, root: Path, damage: bytes) -> None:
    blob = await blobs.put(DATA)
    file_of(root, blob.digest).write_bytes(damage)
    with pytest.raises(DataLoss):
        await blobs.get(blob.digest)
    with pytest.raises(DataLoss):
        await joined(blobs.stream(blob.digest))


async def test_putting_the_bytes_again_mends_them(blobs: BlobStore, root: Path) -> None:
    blob = await blobs.put(DATA)
    file_of(root, blob.digest).write_bytes(b"damaged")
    await blobs.put(DATA)
    assert await blobs.get(blob.digest) == DATA


async def test_every_digest_is_listed(blobs: BlobStore) -> None:
    stored = [(await blobs.put(bytes([n]))).digest for n in range(20)]
    assert [digest async for digest in blobs.digests()] == sorted(stored)


async def test_only_the_owner_may_read_the_files(blobs: BlobStore, root: Path) -> None:
    await blobs.put(DATA)
    assert {path.stat().st_mode & 0o077 for path in files(root)} == {0}


async def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Precondition) as refused:
        async with open_blobs(tmp_path / "file" / "blobs"):
            pass
    assert str(tmp_path / "file" / "blobs") in refused.value.message


@pytest.mark.parametrize(("number", "kind"), [(ENOSPC, Exhausted), (EACCES, Precondition)])
def test_a_full_disk_and_a_forbidden_file_are_told_apart(number: int, kind: type[SkyError]) -> None:
    failure = os_failure(OSError(number, "why"), Path("/data/x"))
    assert isinstance(failure, kind)
    assert "/data/x" in failure.message
