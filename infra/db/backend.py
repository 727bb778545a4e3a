"""What the writer needs of a database system: one connection, its transactions, and what its errors mean."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from sqlalchemy import Connection

from infra.errors import SkyError


class Fate(Enum):
    """What became of a batch when an error came, and so what is to be done."""

    DATA = "one write of the batch is wrong: find it, the others are as good as before"
    REFUSED = "rolled back: tell everybody why"
    AGAIN = "rolled back, or nobody knows: write the same batch again, since every write knows itself"
    FATAL = "nobody knows, and nothing that is read from now on can be believed: end the process"


class Backend(Protocol):
    """The connection that writes. Everything but `close` is called in the writer's thread."""

    @property
    def connection(self) -> Connection:
        """The present one; another after one was lost."""
        ...

    def begin(self) -> None:
        """Begin a transaction, on a new connection when the last one was lost."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None:
        """End the transaction, if there is one and a connection to end it on."""
        ...

    def announce(self, topics: frozenset[str]) -> None:
        """In the transaction: tell other processes, once it is committed, what has news."""
        ...

    def scrub(self) -> bool:
        """Outside of a transaction: overwrite what was deleted; whether all of it is gone from the files, too."""
        ...

    def fate(self, error: BaseException) -> Fate: ...

    def explained(self, error: BaseException) -> SkyError:
        """What a person should be told of an error that is not one of data."""
        ...

    def outcome_unknown(self) -> SkyError: ...

    def close(self) -> None: ...
