"""References to stored bytes, wherever in a message they stand."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from skyagent.common.v1.blob_pb2 import BlobRef


def blob_refs(message: Message) -> Iterator[BlobRef]:
    """Every reference to bytes anywhere in a message."""
    if isinstance(message, BlobRef):
        yield message
        return
    for part in parts_of(message):
        yield from blob_refs(part)


def parts_of(message: Message) -> Iterator[Message]:
    """The messages that stand directly in a message; maps are left out."""
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from value if field.is_repeated else (value,)
