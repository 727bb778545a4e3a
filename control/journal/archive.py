"""The archive of a run: its events as a compressed file in the blob store, and what reads them back.

The file is made and durable before the transaction that swaps the rows for its digest, so that at any moment one of the
two is whole. The same events always make the same bytes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

import zstandard

from control.journal.chain import payload_digest
from control.journal.event import StoredEvent
from infra.blobs import BlobStore, stored_in
from infra.errors import DataLoss, Precondition
from skyagent.run.v1.archive_pb2 import ArchivedEvent, ArchivedRun

LEVEL = 10
LONGEST_READ = 60.0
"""Seconds."""
_KEPT = 4
"""Archives that stay unpacked, since one is read page by page."""


@dataclass(slots=True)
class Archives:
    """Reads archives inside transactions, which run in threads of their own and may wait."""

    load: Callable[[str], bytes]
    _unpacked: OrderedDict[str, tuple[StoredEvent, ...]] = field(
        default_factory=OrderedDict[str, tuple[StoredEvent, ...]]
    )

    def events(self, digest: str) -> tuple[StoredEvent, ...]:
        """Every event of an archive, from the first on. Raises NotFound or DataLoss for one that is gone or damaged."""
        known = self._unpacked.get(digest)
        if known is None:
            known = self._unpacked[digest] = unpacked(self.load(digest))
            if len(self._unpacked) > _KEPT:
                self._unpacked.popitem(last=False)
        return known

    def forget(self, digest: str) -> None:
        """Keeps nothing of an archive that is removed."""
        self._unpacked.pop(digest, None)


def archives_in(blobs: BlobStore) -> Archives:
    """Those of a blob store. Call it in the event loop that the store belongs to."""
    loop = asyncio.get_running_loop()

    def load(digest: str) -> bytes:
        return asyncio.run_coroutine_threadsafe(blobs.get(digest), loop).result(LONGEST_READ)

    return Archives(load)


def archives_under(blobs: Path) -> Archives:
    """Those in the folder of a blob store, for programs that have no event loop."""
    return Archives(partial(stored_in, blobs))


def _not_here(digest: str) -> NoReturn:
    raise Precondition(
        "ARCHIVE_UNREACHABLE", f"the archive {digest} cannot be read here: open the journal with its blobs"
    )


NO_ARCHIVES = Archives(_not_here)
"""For journals in which nothing is archived."""


def packed(run_id: str, events: Sequence[StoredEvent]) -> bytes:
    """The archive of these events. What follows from the rest is left out: hashes do not compress."""
    before = (b"", *(event.hash for event in events))
    archived = ArchivedRun(run_id=run_id, events=map(_packed, events, before))
    return zstandard.ZstdCompressor(LEVEL).compress(archived.SerializeToString(deterministic=True))


def unpacked(archive: bytes) -> tuple[StoredEvent, ...]:
    """The events of an archive. Raises DataLoss ARCHIVE_UNREADABLE."""
    try:
        run = ArchivedRun.FromString(zstandard.ZstdDecompressor().decompress(archive))
    except (zstandard.ZstdError, ValueError) as bad:
        raise DataLoss("ARCHIVE_UNREADABLE", f"these bytes are no archive of a run: {bad}") from bad
    before = (b"", *(event.hash for event in run.events))
    return tuple(map(partial(_unpacked, run.run_id), run.events, before))


def _packed(event: StoredEvent, before: bytes) -> ArchivedEvent:
    follows = event.payload is not None and payload_digest(event.payload) == event.payload_digest
    return ArchivedEvent(
        seq=event.seq,
        append_id=event.append_id,
        epoch=event.epoch,
        kind=event.kind,
        time_ms=event.time_ms,
        payload=event.payload,
        payload_digest=b"" if follows else event.payload_digest,
        prev_hash=b"" if event.prev_hash == before else event.prev_hash,
        hash=event.hash,
    )


def _unpacked(run_id: str, event: ArchivedEvent, before: bytes) -> StoredEvent:
    return StoredEvent(
        run_id=run_id,
        seq=event.seq,
        append_id=event.append_id,
        epoch=event.epoch,
        kind=event.kind,
        time_ms=event.time_ms,
        payload=event.payload if event.HasField("payload") else None,
        payload_digest=event.payload_digest or payload_digest(event.payload),
        prev_hash=event.prev_hash or before,
        hash=event.hash,
    )
