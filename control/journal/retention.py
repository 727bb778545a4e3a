"""Archiving and erasing: files first, then the one transaction that counts, then what is left to be removed.

Whoever dies half-way leaves either the rows or the file, each whole; what lies about is named in the database, and
removed when the same is done again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from control.journal.archive import Archives, packed
from control.journal.erasure import Erase, Erasure, RunNotEnded, digests_in, without
from control.journal.event import StoredEvent
from control.journal.journal import Also, Archived, Named, Scrubbed
from control.journal.queries import archives as files
from control.journal.queries import erasures, events, runs
from control.journal.run import RunHead
from infra.blobs import BlobStore
from infra.db import Database
from infra.digest import digest_of
from infra.errors import Conflict, DataLoss

TRIES = 5
Time = Callable[[Connection], int]


@dataclass(frozen=True, slots=True)
class _Whole:
    """A run with all its events, as one transaction saw them."""

    head: RunHead
    events: tuple[StoredEvent, ...]
    archive: str | None


@dataclass(frozen=True, slots=True)
class Retention:
    """What becomes of runs that have ended."""

    db: Database
    blobs: BlobStore
    archives: Archives

    async def archive(self, run_id: str, now_ms: Time) -> Archived:
        """The run's events in one file. Doing it again changes nothing."""
        for _ in range(TRIES):
            run = await self.db.read(lambda connection: self._whole(connection, run_id))
            if not run.head.terminal:
                raise RunNotEnded(run_id, "archived")
            file = await asyncio.to_thread(packed, run_id, run.events)
            made = files.KeptArchive(digest_of(file), run.head.head_seq)
            size = sum(map(_row_bytes, run.events))
            done = Archived(len(run.events), size, len(file))
            if run.archive == made.digest:
                return done
            await self.db.transact(
                lambda connection, made=made: files.begin(
                    connection, run_id, made.digest, made.last_seq, now_ms(connection)
                )
            )
            await self.blobs.put(file, expected=made.digest)
            swapped = await self.db.transact(
                lambda connection, made=made, run=run: files.swap(
                    connection, run_id, made, run.archive, run.head.head_hash, now_ms(connection)
                )
            )
            if swapped:
                if run.archive is not None:
                    await self.blobs.delete(run.archive)
                return done
            if made.digest not in await self.db.read(lambda connection: files.named_archives(connection, run_id)):
                await self.blobs.delete(made.digest)
        raise Conflict("RUN_MOVES", f"run {run_id} gets new events all the time: archive it later", run_id=run_id)

    async def erase(self, erase: Erase, now_ms: Time, also: Also | None) -> Erasure:
        """Nothing derived is left when it returns, but for blobs and free pages, which `scrub` removes."""
        for _ in range(TRIES):
            await self.db.read(lambda connection: erasures.refuse(connection, erase))
            archive = await self._archived_without(erase)

            def write(connection: Connection, archive: tuple[str, str] | None = archive) -> Erasure | None:
                removing = erasures.Removing(erase, archive, self.archives, also)
                return removing.all(connection, now_ms(connection))

            erased = await self.db.transact(write)
            if erased is not None:
                return erased
        raise Conflict("RUN_MOVES", f"run {erase.run_id} is archived all the time: try again", run_id=erase.run_id)

    async def scrub(self, some: Sequence[Erasure], named: Named) -> Scrubbed:
        """Removes what only these named, and overwrites what was freed."""

        def everything(connection: Connection) -> Iterator[bytes | None]:
            yield from erasures.said_anywhere(connection, self.archives)
            yield from named(connection)

        unwanted = {digest for erasure in some for digest in erasure.unwanted}
        if unwanted:
            unwanted -= await self.db.read(lambda connection: digests_in(everything(connection)))
        for digest in sorted(unwanted):
            await self.blobs.delete(digest)
            self.archives.forget(digest)
        await self.db.transact(lambda connection: erasures.forget_unwanted(connection, [e.erasure_id for e in some]))
        done = await self.db.scrub()
        if done:
            await self.db.transact(lambda connection: erasures.scrubbed(connection, [e.erasure_id for e in some]))
        return Scrubbed(frozenset(unwanted), done)

    async def _archived_without(self, erase: Erase) -> tuple[str, str] | None:
        """The digest of the run's archive, and of one without what is erased, which is durable now."""
        kept = await self.db.read(lambda connection: files.archive_of(connection, erase.run_id))
        if kept is None:
            return None
        whole = await asyncio.to_thread(self.archives.events, kept.digest)
        file = await asyncio.to_thread(packed, erase.run_id, without(whole, erase))
        return kept.digest, (await self.blobs.put(file)).digest

    def _whole(self, connection: Connection, run_id: str) -> _Whole:
        """Raises DataLoss for a journal that is not as it was written: it must not be sealed."""
        found = events.verify(connection, run_id, self.archives)
        if found.bad_seq is not None:
            raise DataLoss("JOURNAL_ALTERED", found.reason)
        kept = files.archive_of(connection, run_id)
        every = tuple(events.all_of(connection, run_id, self.archives))
        return _Whole(runs.head(connection, run_id, None), every, kept.digest if kept else None)


def _row_bytes(event: StoredEvent) -> int:
    """What a row holds: three hashes, two ids, and numbers of some 20 bytes, besides the payload."""
    return len(event.payload or b"") + 3 * len(event.hash) + len(event.run_id) + len(event.append_id) + 20
