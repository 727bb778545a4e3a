"""Evidence on its way: kept on the worker's disk with its attempt until the control plane has recorded the outcome.

    spool/<run_id>/<step_id>.<attempt>/<64 hexadecimal digits of the BLAKE3>

A folder for each attempt means that letting go of one can never take bytes from another.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from grpc.aio import AioRpcError

from execution.attempts import AttemptKey
from infra.digest import digest_hex, digest_of
from infra.disk import explained, sync_folder
from infra.errors import DataLoss, Unavailable
from infra.status import from_rpc_error
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import worker_service_pb2 as pb

if TYPE_CHECKING:
    from skyagent.execution.v1.worker_service_pb2_grpc import WorkerServiceAsyncStub

CHUNK = 256 * 1024
CALL_DEADLINE = 60.0  # seconds for one blob


class Spool:
    """The bytes that this worker's attempts have stored and that are not released."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stored: set[AttemptKey] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(self, key: AttemptKey, data: bytes) -> str:
        """Stores bytes and returns their digest; they are on disk when this returns."""
        digest = digest_of(data)
        self._stored.add(key)
        await asyncio.to_thread(_write_durably, self._folder, self._path(key, digest), data)
        return digest

    async def get(self, key: AttemptKey, digest: str) -> bytes | None:
        """Bytes of this attempt; None when it has stored none of that digest. Raises DataLoss for altered bytes."""
        path = self._path(key, digest)
        try:
            data = await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return None
        if digest_of(data) != digest:
            raise DataLoss("SPOOL_DAMAGED", f"{path} is not the evidence that was stored: the disk has altered it")
        return data

    async def drop(self, key: AttemptKey) -> None:
        """Lets go of an attempt's bytes."""
        if key in self._stored:
            self._stored.discard(key)
            await asyncio.to_thread(_remove, self._attempt(key))

    async def drop_run(self, run_id: str) -> None:
        """Lets go of all bytes of a run."""
        for key in [key for key in self._stored if key.run_id == run_id]:
            await self.drop(key)
        await asyncio.to_thread(_remove, self._folder / run_id)

    def sweep(self, keep: Collection[AttemptKey]) -> None:
        """At start: removes what a former process stored and no outcome names."""
        self._stored = {key for key in keep if self._attempt(key).is_dir()}
        kept = {self._attempt(key) for key in self._stored}
        for run in list(self._folder.iterdir()):
            for attempt in list(run.iterdir()):
                if attempt not in kept:
                    _remove(attempt)
            if not any(run.iterdir()):
                run.rmdir()

    def _attempt(self, key: AttemptKey) -> Path:
        return self._folder / key.run_id / f"{key.step_id}.{key.attempt}"

    def _path(self, key: AttemptKey, digest: str) -> Path:
        return self._attempt(key) / digest_hex(digest)


class Store:
    """The control plane's blob store, as far as one connection reaches it."""

    def __init__(self, stub: WorkerServiceAsyncStub) -> None:
        self._stub = stub

    async def put(self, ref: BlobRef, data: bytes) -> None:
        """Stores bytes there, or finds them there. Raises what the control plane answered."""
        try:
            await self._stub.PutBlob(_pieces(ref, data), timeout=CALL_DEADLINE)
        except AioRpcError as error:
            raise from_rpc_error(error) from error

    async def get(self, digest: str) -> bytes:
        """Reads stored bytes. Raises NotFound; DataLoss when what arrives is something else."""
        call = self._stub.GetBlob(pb.GetBlobRequest(digest=digest), timeout=CALL_DEADLINE)
        try:
            data = b"".join([piece.data async for piece in call])
        except AioRpcError as error:
            raise from_rpc_error(error) from error
        if digest_of(data) != digest:
            raise DataLoss("BLOB_DIGEST_MISMATCH", f"the control plane sent other bytes than {digest}")
        return data


class AttemptBlobs:
    """The BlobSink of one attempt: writes to the spool; reads there, then from the control plane."""

    def __init__(self, key: AttemptKey, spool: Spool, store: Callable[[], Store | None]) -> None:
        self._key = key
        self._spool = spool
        self._store = store

    async def put(self, data: bytes, media_type: str, role: str) -> BlobRef:
        digest = await self._spool.put(self._key, data)
        return BlobRef(digest=digest, size=len(data), media_type=media_type, role=role)

    async def get(self, digest: str) -> bytes:
        own = await self._spool.get(self._key, digest)
        if own is not None:
            return own
        store = self._store()
        if store is None:
            raise Unavailable("DISCONNECTED", f"blob {digest} lies at the control plane, which is not connected now")
        return await store.get(digest)


async def _pieces(ref: BlobRef, data: bytes) -> AsyncGenerator[pb.PutBlobRequest]:
    yield pb.PutBlobRequest(ref=ref)
    for start in range(0, len(data), CHUNK):
        yield pb.PutBlobRequest(data=data[start : start + CHUNK])


def _write_durably(root: Path, path: Path, data: bytes) -> None:
    if path.exists():
        return
    with explained(path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        for folder in (path.parent, path.parent.parent, root):
            sync_folder(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
