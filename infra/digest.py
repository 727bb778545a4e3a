"""Digests: the name of immutable bytes is `b3:` and the 64 hexadecimal digits of their BLAKE3-256."""

from __future__ import annotations

from blake3 import blake3
from google.protobuf.message import Message

PREFIX = "b3:"


class Digester:
    """Takes bytes piece by piece, for what is too large to hold."""

    def __init__(self) -> None:
        self._hasher = blake3()

    def update(self, data: bytes) -> None:
        self._hasher.update(data)

    def digest(self) -> str:
        """The digest of everything so far."""
        return PREFIX + self._hasher.hexdigest()


def digest_of(data: bytes) -> str:
    """The digest of some bytes."""
    return PREFIX + blake3(data).hexdigest()


def digest_message(message: Message) -> str:
    """The digest of a message: of its deterministic serialisation, so map order does not change it."""
    return digest_of(message.SerializeToString(deterministic=True))


def digest_hex(digest: str) -> str:
    """The bare 64 hexadecimal digits, for instance for a file name."""
    return digest.removeprefix(PREFIX)
