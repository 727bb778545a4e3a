"""The hot path on SQLite: all appends of a batch in one transaction, on the bare driver connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from control.journal.append import Append
from control.journal.append_careful import write
from control.journal.appending import INSERT_EVENT, Heads, Written, publish
from control.journal.hub import Hub
from infra.db.driver import driver_of
from infra.errors import SkyError


class SqliteAppends:
    """Handler of Append on SQLite (infra.db.BatchHandler); tells the hub what was committed."""

    def __init__(self, now_ms: Callable[[Connection], int], hub: Hub) -> None:
        self._now_ms, self._hub, self._heads = now_ms, hub, Heads()

    def apply(self, connection: Connection, items: Sequence[Append]) -> Sequence[Written | SkyError]:
        driver, now_ms = driver_of(connection), self._now_ms(connection)
        answers = [write(driver, append, now_ms, self._heads) for append in items]
        written = [answer for answer in answers if isinstance(answer, Written)]
        driver.executemany(INSERT_EVENT, [row for append in written for row in append.rows])
        return answers

    def topics(self, items: Sequence[Append]) -> Iterable[str]:
        """Nobody else has the file."""
        return ()

    def committed(self, results: Sequence[Written]) -> None:
        publish(self._hub, results)
