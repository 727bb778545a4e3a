"""Bytes that an outcome names: stored before an event names them, or not named at all.

A worker stores evidence before it reports. A result whose bytes are not here as it says is refused; the worker keeps
both until they are recorded, so it stores and reports again. What it cannot store (a disk altered it, or it never was)
must not keep its outcome out of the journal: after a few refusals that is recorded without those bytes, and says so.
"""

from __future__ import annotations

from collections.abc import Collection

from google.protobuf.message import Message

from infra.blobs import BlobStore
from infra.errors import InvalidArgument, NotFound
from infra.refs import blob_refs, parts_of
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act

MOST_REFUSALS = 3
"""How often one result is refused on a stream."""
NOT_STORED = "NOT_STORED"
"""The reason of an outcome that was a success but for a file it made, which nobody can read."""
_LONGEST_MESSAGE = 4096


async def not_stored(blobs: BlobStore, outcome: act.Outcome) -> list[str]:
    """Digests that an outcome names and that are not here, or with another length; each once."""
    named = dict.fromkeys((ref.digest, ref.size) for ref in blob_refs(outcome) if ref.digest)
    return list(dict.fromkeys([digest for digest, size in named if not await _stored(blobs, digest, size)]))


async def _stored(blobs: BlobStore, digest: str, size: int) -> bool:
    try:
        return await blobs.size(digest) == size
    except (NotFound, InvalidArgument):
        return False


def without(outcome: act.Outcome, missing: Collection[str]) -> act.Outcome:
    """The same outcome, naming only what is stored.

    Its effect stays what it was. A success stays one when only evidence is missing: its claims are judged all the same.
    """
    kept = act.Outcome()
    kept.CopyFrom(outcome)
    evidence = [ref for ref in kept.blobs if ref.digest not in missing]
    del kept.blobs[:]
    made = any(ref.digest in missing for ref in blob_refs(kept))
    _clear(kept, missing)
    kept.blobs.extend(evidence)
    if made and kept.status == act.OUTCOME_STATUS_OK:
        kept.status, kept.reason = act.OUTCOME_STATUS_FAILED, NOT_STORED
    said = f"its worker never stored {', '.join(missing)}"
    kept.message = f"{kept.message}; {said}"[-_LONGEST_MESSAGE:] if kept.message else said[:_LONGEST_MESSAGE]
    return kept


def _clear(message: Message, missing: Collection[str]) -> None:
    """Takes references to missing bytes out of a message."""
    for field, value in message.ListFields():
        if field.message_type is not BlobRef.DESCRIPTOR:
            continue
        refs = list(value) if field.is_repeated else [value]
        kept = [ref for ref in refs if ref.digest not in missing]
        if len(kept) < len(refs):
            message.ClearField(field.name)
            if field.is_repeated:
                getattr(message, field.name).extend(kept)
    for part in parts_of(message):
        _clear(part, missing)
