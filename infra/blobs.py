"""Immutable bytes by digest. What put() has returned is on the disk, so an event may name it.

Files lie at `b3/ab/<64 hexadecimal digits>`. They are written here and not through obstore, whose local store does not
fsync; a store on S3 keeps this interface.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Protocol, TypeVar

from infra.digest import PREFIX, Digester, digest_hex, digest_of
from infra.disk import explained, sync_folder
from infra.errors import DataLoss, InvalidArgument, NotFound, OutOfRange, Violation
from infra.metrics import NO_METRICS, Metrics
from infra.metrics import catalogue as known

if TYPE_CHECKING:
    from infra.mesh import Runtime

ResultT = TypeVar("ResultT")

CHUNK = 256 * 1024
_DIGEST = re.compile(r"b3:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """The name and length of stored bytes."""

    digest: str
    size: int


class BlobStore(Protocol):
    """Puts and gets immutable bytes; digests are `b3:` and 64 hexadecimal digits, else InvalidArgument BAD_DIGEST."""

    async def put(self, data: bytes | AsyncIterable[bytes], *, expected: str | None = None) -> Blob:
        """Store bytes durably; known bytes are kept once.

        Raises InvalidArgument DIGEST_MISMATCH, Exhausted DISK_FULL, Precondition DATA_UNWRITABLE.
        """
        ...

    async def get(self, digest: str) -> bytes:
        """All bytes, checked against their digest. Raises NotFound BLOB_NOT_FOUND, DataLoss BLOB_DAMAGED."""
        ...

    def stream(
        self, digest: str, *, start: int = 0, length: int | None = None, chunk: int = CHUNK
    ) -> AsyncGenerator[bytes]:
        """Bytes from `start` on, at most `length`, in pieces.

        Raises NotFound BLOB_NOT_FOUND, OutOfRange BLOB_RANGE, and DataLoss BLOB_DAMAGED before the last piece of a
        whole blob.
        """
        ...

    async def size(self, digest: str) -> int:
        """Length in bytes. Raises NotFound BLOB_NOT_FOUND."""
        ...

    async def exists(self, digest: str) -> bool:
        """Whether the bytes are here."""
        ...

    async def delete(self, digest: str) -> bool:
        """Remove bytes for good; whether they were here. Nothing that names them may be left."""
        ...

    def digests(self) -> AsyncGenerator[str]:
        """Every digest stored, in order."""
        ...


class FileBlobs:
    """A BlobStore in a folder. Made by open_blobs()."""

    def __init__(self, root: Path, metrics: Metrics = NO_METRICS) -> None:
        self._root = root
        self._stored, self._bytes = metrics.count(known.BLOBS_STORED), metrics.count(known.BLOB_BYTES)
        self._objects = root / "b3"
        self._staging = root / "staging"

    async def put(self, data: bytes | AsyncIterable[bytes], *, expected: str | None = None) -> Blob:
        if expected is not None:
            self._path(expected)
        staged = await self._disk(self._stage)
        try:
            return await self._receive(staged, data, expected)
        finally:
            await self._disk(lambda: _discard(staged))

    async def get(self, digest: str) -> bytes:
        data = await self._found(digest, Path.read_bytes)
        if digest_of(data) != digest:
            raise _damaged(digest)
        return data

    async def stream(
        self, digest: str, *, start: int = 0, length: int | None = None, chunk: int = CHUNK
    ) -> AsyncGenerator[bytes]:
        size = await self.size(digest)
        if not 0 <= start <= size:
            raise OutOfRange("BLOB_RANGE", f"{digest} has {size} bytes: give a start from 0 to {size}", digest=digest)
        left = size - start if length is None else min(length, size - start)
        whole = left == size
        digester = Digester()
        with await self._found(digest, lambda path: path.open("rb")) as source:
            source.seek(start)
            while left:
                piece = await self._disk(partial(source.read, min(chunk, left)))
                left -= len(piece)
                digester.update(piece)
                if not piece or (whole and not left and digester.digest() != digest):
                    raise _damaged(digest)
                yield piece

    async def size(self, digest: str) -> int:
        return (await self._found(digest, Path.stat)).st_size

    async def exists(self, digest: str) -> bool:
        return await self._disk(self._path(digest).is_file)

    async def delete(self, digest: str) -> bool:
        path = self._path(digest)

        def remove() -> bool:
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            sync_folder(path.parent)
            return True

        return await self._disk(remove)

    async def digests(self) -> AsyncGenerator[str]:
        for shard in await self._disk(lambda: sorted(self._objects.iterdir())):
            for path in await self._disk(lambda shard=shard: sorted(shard.iterdir())):
                yield PREFIX + path.name

    def prepare(self) -> None:
        """Make the folders, and remove what a process left behind that died in the middle of a put."""
        with explained(self._root):
            for folder in (self._root, self._objects, self._staging):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in self._staging.iterdir():
                leftover.unlink()

    async def _receive(self, staged: IO[bytes], data: bytes | AsyncIterable[bytes], expected: str | None) -> Blob:
        digester, size = Digester(), 0
        async for piece in _pieces(data):
            await self._disk(partial(staged.write, piece))
            digester.update(piece)
            size += len(piece)
        digest = digester.digest()
        if expected is not None and digest != expected:
            raise InvalidArgument(
                Violation("digest", f"these bytes have the digest {digest}, not {expected}: send them again"),
                reason="DIGEST_MISMATCH",
            )
        await self._disk(lambda: self._keep(staged, self._path(digest)))
        self._stored.add()
        self._bytes.add(size)
        return Blob(digest, size)

    def _stage(self) -> IO[bytes]:
        return NamedTemporaryFile(dir=self._staging, delete=False)

    def _keep(self, staged: IO[bytes], target: Path) -> None:
        staged.flush()
        os.fdatasync(staged.fileno())
        if not target.parent.is_dir():
            target.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._objects)
        # Replacing bytes by the same bytes is harmless, and mends a file that was damaged.
        Path(staged.name).replace(target)
        sync_folder(target.parent)

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidArgument(
                Violation("digest", f"{digest!r} is no digest: give b3: and 64 hexadecimal digits"), reason="BAD_DIGEST"
            )
        digits = digest_hex(digest)
        return self._objects / digits[:2] / digits

    async def _found(self, digest: str, use: Callable[[Path], ResultT]) -> ResultT:
        path = self._path(digest)
        try:
            return await asyncio.to_thread(use, path)
        except FileNotFoundError as missing:
            raise NotFound("BLOB_NOT_FOUND", f"{digest} is not stored here", digest=digest) from missing

    async def _disk(self, use: Callable[[], ResultT]) -> ResultT:
        with explained(self._root):
            return await asyncio.to_thread(use)


@asynccontextmanager
async def open_blobs(root: Path, metrics: Metrics = NO_METRICS) -> AsyncGenerator[BlobStore]:
    """The store in a folder that no other process writes to."""
    blobs = FileBlobs(root, metrics)
    await asyncio.to_thread(blobs.prepare)
    yield blobs


@asynccontextmanager
async def shared_blobs(runtime: Runtime) -> AsyncGenerator[BlobStore]:
    """The one of this process: `await runtime.shared(shared_blobs)`."""
    async with open_blobs(runtime.settings.blobs_dir, runtime.metrics) as blobs:
        yield blobs


def stored_in(root: Path, digest: str) -> bytes:
    """Stored bytes, checked against their digest. Raises NotFound BLOB_NOT_FOUND, DataLoss BLOB_DAMAGED."""
    digits = digest_hex(digest)
    try:
        data = (root / "b3" / digits[:2] / digits).read_bytes()
    except FileNotFoundError as missing:
        raise NotFound("BLOB_NOT_FOUND", f"{digest} is not stored here", digest=digest) from missing
    if digest_of(data) != digest:
        raise _damaged(digest)
    return data


def damage_of(root: Path, digest: str) -> str:
    """What is wrong with stored bytes, read to their end; empty when they are what was stored."""
    digits, digester = digest_hex(digest), Digester()
    try:
        with (root / "b3" / digits[:2] / digits).open("rb") as source:
            while piece := source.read(CHUNK):
                digester.update(piece)
    except OSError as error:
        return error.strerror or str(error)
    return "" if digester.digest() == digest else "the stored bytes are not what was stored"


async def _pieces(data: bytes | AsyncIterable[bytes]) -> AsyncGenerator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for piece in data:
        yield piece


def _discard(staged: IO[bytes]) -> None:
    staged.close()
    Path(staged.name).unlink(missing_ok=True)


def _damaged(digest: str) -> DataLoss:
    return DataLoss(
        "BLOB_DAMAGED",
        f"the stored bytes of {digest} are not what was stored: restore them from a backup",
        digest=digest,
    )
