"""Bytes that only workers of this installation read: what a session was started from holds cookies, which are keys.

They are stored among all other blobs, which whoever may see a run may read; so they are encrypted before they leave the
worker. Workers on other machines need the same key file, or a session cannot be taken along to them.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken

from infra.errors import Precondition


class Seal:
    """Fernet under the key in a file, which is made when it is missing."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def close(self, data: bytes) -> bytes:
        """The bytes, sealed; other ones each time."""
        return self._fernet().encrypt(data)

    def open(self, sealed: bytes) -> bytes:
        """The bytes again. Raises Precondition when they were sealed with another key."""
        try:
            return self._fernet().decrypt(sealed)
        except InvalidToken:
            fix = f"copy the file {self._key_file} of the worker that made it here"
            raise Precondition(
                "SESSION_NOT_RESTORED", f"the session was sealed with another key: {fix}, or start another run"
            ) from None

    def _fernet(self) -> Fernet:
        with suppress(FileExistsError):
            self._make_key()
        return Fernet(self._key_file.read_bytes())

    def _make_key(self) -> None:
        """Whole under its name, or not at all: several workers may start at once."""
        if self._key_file.exists():
            return
        self._key_file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._key_file.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(Fernet.generate_key())
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, self._key_file)
        finally:
            draft.unlink()
