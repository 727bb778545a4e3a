"""Archiving and erasing: what is still there, what is gone, and what a crash in the middle leaves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from control.journal import (
    Erasure,
    ErasureQuery,
    EventDraft,
    ForkPoint,
    Projection,
    RunHead,
    RunNotEnded,
    Snapshot,
    SqlJournal,
    StoredEvent,
)
from control.journal.archive import packed, unpacked
from control.journal.errors import RunHasForks, RunNotFound
from infra.blobs import Blob, BlobStore
from infra.digest import digest_of
from infra.errors import DataLoss, Precondition
from tests.control.journal.world import TENANT, World, opened

MARKER = b"Rosa Klebb, 7 Crab Key"


async def rows(world: World, run: RunHead) -> int:
    counted = text("SELECT count(*) FROM run_events WHERE run_id = :run_id")
    return await world.db.read(lambda connection: connection.execute(counted, {"run_id": run.run_id}).scalar_one())


async def long_run(world: World, events: int = 40) -> RunHead:
    return await world.ended(*(EventDraft(7, b"%d of a text that is always the same" % n) for n in range(events)))


def nothing(_: Connection) -> Iterator[bytes]:
    return iter(())


async def scrubbed(world: World) -> frozenset[str]:
    found = await world.journal.scrub(await world.journal.unscrubbed(), named=nothing)
    assert found.done
    return found.removed


async def test_an_archived_run_reads_verifies_and_lists_as_before(world: World) -> None:
    run = await long_run(world)
    before = await world.journal.read(run.run_id)
    listed = await world.journal.listing(run.run_id, tenant=TENANT)
    done = await world.journal.archive(run.run_id)
    assert (done.events, await rows(world, run)) == (len(before), 0)
    assert done.archive_bytes < done.journal_bytes
    assert await world.journal.read(run.run_id) == before
    for after in (0, 1, 20, len(before) - 1, len(before)):
        assert await world.journal.read(run.run_id, after_seq=after, limit=7) == before[after : after + 7]
    found = await world.journal.verify(run.run_id)
    assert (found.events, found.bad_seq) == (len(before), None)
    assert await world.journal.listing(run.run_id, tenant=TENANT) == listed


async def test_archiving_again_changes_nothing(world: World) -> None:
    run = await long_run(world)
    done = await world.journal.archive(run.run_id)
    stored = [digest async for digest in world.blobs.digests()]
    assert await world.journal.archive(run.run_id) == done
    assert [digest async for digest in world.blobs.digests()] == stored


async def test_what_comes_after_a_run_was_archived_is_read_after_it_and_archived_with_it(world: World) -> None:
    run = await long_run(world)
    await world.journal.archive(run.run_id)
    await world.journal.append(world.result(run, EventDraft(17, b"late")))
    every = await world.journal.read(run.run_id)
    assert [event.seq for event in every] == list(range(1, run.head_seq + 2))
    assert await world.journal.read(run.run_id, after_seq=run.head_seq - 1) == every[-2:]
    assert (await world.journal.verify(run.run_id)).bad_seq is None
    assert run.run_id in await world.journal.archivable(before_ms=world.clock.now_ms() + 1, limit=9)
    await world.journal.archive(run.run_id)
    assert (await rows(world, run), await world.journal.read(run.run_id)) == (0, every)
    assert len([digest async for digest in world.blobs.digests()]) == 1


async def test_only_what_has_ended_long_enough_ago_is_due(world: World) -> None:
    old, going = await long_run(world), await world.owned()
    await world.clock.advance(60)
    young = await long_run(world)
    due = await world.journal.archivable(before_ms=world.clock.now_ms() - 30_000, limit=9)
    assert list(due) == [old.run_id]
    assert {young.run_id, going.run_id}.isdisjoint(due)
    await world.journal.archive(old.run_id)
    assert not await world.journal.archivable(before_ms=world.clock.now_ms() - 30_000, limit=9)


async def test_a_run_that_goes_on_is_neither_archived_nor_erased(world: World) -> None:
    run = await world.owned()
    for refused in (world.journal.archive(run.run_id), world.journal.erase(world.erase(run))):
        with pytest.raises(RunNotEnded, match="cancel it first"):
            await refused
    assert await rows(world, run) == 1


async def test_a_journal_that_was_altered_is_not_sealed_into_an_archive(world: World) -> None:
    run = await long_run(world)
    altered = text("UPDATE run_events SET epoch = 9 WHERE run_id = :run_id AND seq = 5")
    await world.db.transact(lambda connection: connection.execute(altered, {"run_id": run.run_id}).close())
    with pytest.raises(DataLoss, match="event 5"):
        await world.journal.archive(run.run_id)
    assert await rows(world, run) == run.head_seq


async def test_an_archive_that_is_damaged_or_gone_is_told_by_the_audit(world: World) -> None:
    run = await long_run(world)
    await world.journal.archive(run.run_id)
    (digest,) = [digest async for digest in world.blobs.digests()]
    await world.blobs.delete(digest)
    found = await world.journal.verify(run.run_id)
    assert (found.bad_seq, "archive" in found.reason) == (1, True)


async def test_a_fork_may_grow_from_an_archived_run(world: World) -> None:
    run = await long_run(world)
    await world.journal.archive(run.run_id)
    point = (await world.journal.read(run.run_id))[6]
    fork = replace(world.new_run(), parent=ForkPoint(run.run_id, point.seq, point.hash))
    child = await world.journal.create_run(fork)
    assert (await world.journal.verify(child.run_id)).bad_seq is None


class Dying(Exception):
    """The process dies here."""


class Broken:
    """A blob store that dies before or after it has stored."""

    def __init__(self, blobs: BlobStore, *, stores: bool) -> None:
        self._blobs, self._stores = blobs, stores

    def __getattr__(self, name: str) -> object:
        return getattr(self._blobs, name)

    async def put(self, data: bytes, *, expected: str | None = None) -> object:
        if self._stores:
            await self._blobs.put(data, expected=expected)
        raise Dying


@pytest.mark.parametrize("stores", [False, True])
async def test_a_crash_while_archiving_leaves_the_rows_and_the_next_try_ends_it(world: World, *, stores: bool) -> None:
    run = await long_run(world)
    before = await world.journal.read(run.run_id)
    dying = SqlJournal(
        world.db,
        world.clock,
        blobs=Broken(world.blobs, stores=stores),  # pyright: ignore[reportArgumentType]  # by delegation
    )
    with pytest.raises(Dying):
        await dying.archive(run.run_id)
    assert (await rows(world, run), await world.journal.read(run.run_id)) == (run.head_seq, before)
    assert (await world.journal.verify(run.run_id)).bad_seq is None
    await world.journal.archive(run.run_id)
    assert (await rows(world, run), await world.journal.read(run.run_id)) == (0, before)


async def test_what_a_crash_left_of_an_archive_goes_when_the_run_is_erased(world: World) -> None:
    run = await world.ended(EventDraft(7, MARKER))
    dying = SqlJournal(
        world.db,
        world.clock,
        blobs=Broken(world.blobs, stores=True),  # pyright: ignore[reportArgumentType]  # by delegation
    )
    with pytest.raises(Dying):
        await dying.archive(run.run_id)
    (left,) = [digest async for digest in world.blobs.digests()]
    await world.journal.erase(world.erase(run))
    assert await scrubbed(world) == {left}
    assert not [digest async for digest in world.blobs.digests()]


@pytest.mark.parametrize("archived", [False, True])
@pytest.mark.parametrize("seqs", [(), (2, 4)])
async def test_what_is_erased_is_gone_everywhere_and_the_chain_still_holds(
    world: World, seqs: tuple[int, ...], *, archived: bool
) -> None:
    run = await world.ended(EventDraft(7, MARKER), EventDraft(7, b"other"), EventDraft(7, MARKER))
    await world.journal.save_snapshot(Snapshot(run.run_id, 4, 1, MARKER))
    before = await world.journal.read(run.run_id)
    if archived:
        await world.journal.archive(run.run_id)
    erasure = await world.journal.erase(world.erase(run, *seqs))
    await scrubbed(world)
    after = await world.journal.read(run.run_id)
    assert [event.payload for event in after] == ([None] * 4 if not seqs else [b"created", None, b"other", None])
    assert [event.hash for event in after] == [event.hash for event in before]
    assert (await world.journal.verify(run.run_id)).bad_seq is None
    assert await world.journal.load_snapshot(run.run_id, fold_version=1) is None
    assert (erasure.all, erasure.seqs, erasure.actor) == (not seqs, seqs, "ann")
    files = [await world.blobs.get(digest) async for digest in world.blobs.digests()]
    assert len(files) == archived
    assert all(unpacked(file) == after for file in files)


async def test_who_erased_what_and_why_stays_on_record(world: World) -> None:
    run = await long_run(world)
    first = await world.journal.erase(world.erase(run, 2))
    second = await world.journal.erase(world.erase(run))
    page = await world.journal.erasures(ErasureQuery(TENANT, page_size=1))
    assert [erasure.erasure_id for erasure in page.erasures] == [second.erasure_id]
    rest = await world.journal.erasures(ErasureQuery(TENANT, page_token=page.next_page_token))
    assert [(one.erasure_id, one.seqs, one.reason) for one in rest.erasures] == [
        (first.erasure_id, (2,), "she asked for it")
    ]
    assert not (await world.journal.erasures(ErasureQuery("others"))).erasures
    assert (await world.journal.erasure(run.run_id)) == replace(second, scrubbed=False)


async def test_the_same_erasure_is_done_once(world: World) -> None:
    run = await long_run(world)
    asked, told = world.erase(run), list[Erasure]()

    def also(_: Connection, erasure: Erasure, payloads: Sequence[bytes]) -> None:
        assert len(payloads) == run.head_seq
        told.append(erasure)

    assert await world.journal.erase(asked, also=also) == await world.journal.erase(asked, also=also)
    assert len(told) == 1


async def test_what_is_written_along_fails_with_the_erasure_or_not_at_all(world: World) -> None:
    run = await long_run(world)

    def fails(_: Connection, __: Erasure, ___: Sequence[bytes]) -> None:
        raise Precondition("NO", "not this one")

    with pytest.raises(Precondition, match="not this one"):
        await world.journal.erase(world.erase(run), also=fails)
    assert all(event.payload for event in await world.journal.read(run.run_id))
    assert await world.journal.erasure(run.run_id) is None


async def test_bytes_that_others_name_stay_and_those_that_nobody_names_go(world: World) -> None:
    mine, shared = await world.blobs.put(b"mine"), await world.blobs.put(b"ours")
    run = await world.ended(EventDraft(7, f"{mine.digest} {shared.digest}".encode()))
    other = await world.ended(EventDraft(7, shared.digest.encode()))
    await world.journal.archive(other.run_id)
    await world.journal.erase(world.erase(run))
    assert await scrubbed(world) == {mine.digest}
    assert not await world.blobs.exists(mine.digest)
    assert await world.blobs.get(shared.digest) == b"ours"
    assert (await world.journal.verify(other.run_id)).bad_seq is None


async def test_a_run_whose_forks_hold_what_it_said_is_erased_after_them(world: World) -> None:
    run = await long_run(world)
    point = (await world.journal.read(run.run_id))[-1]
    fork = await world.journal.create_run(replace(world.new_run(), parent=ForkPoint(run.run_id, point.seq, point.hash)))
    with pytest.raises(RunHasForks, match=fork.run_id):
        await world.journal.erase(world.erase(run))
    assert all(event.payload for event in await world.journal.read(run.run_id))


async def test_another_tenants_run_cannot_be_erased(world: World) -> None:
    run = await long_run(world)
    with pytest.raises(RunNotFound):
        await world.journal.erase(replace(world.erase(run), tenant="others"))


async def test_nothing_in_the_folder_holds_what_was_erased_neither_log_nor_free_pages(tmp_path: Path) -> None:
    async with opened(tmp_path / "journal.db", synchronous="NORMAL") as world:
        run = await world.owned()
        for number in range(30):  # rows that are written again and again leave copies in pages that were split or freed
            said = MARKER * (1 + number % 7 * 40)
            projection = Projection("RUN_PHASE_RUNNING", said)
            await world.journal.append(
                replace(world.result(run, EventDraft(7, said)), expect_seq=run.head_seq + number, projection=projection)
            )
            await world.journal.save_snapshot(Snapshot(run.run_id, run.head_seq + number + 1, 1, said * 3))
        over = Projection("RUN_PHASE_FAILED", MARKER, terminal=True)
        last = replace(world.result(run, EventDraft(7, MARKER)), expect_seq=run.head_seq + 30, projection=over)
        await world.journal.append(last)
        await world.journal.archive(run.run_id)
        assert holding(tmp_path), "without it the test proves nothing"
        await world.journal.erase(world.erase(run))
        await scrubbed(world)
        assert holding(tmp_path) == []
        assert (await world.journal.verify(run.run_id)).events == 32
    assert holding(tmp_path) == []


def holding(folder: Path) -> list[Path]:
    """Files in which the marker stands, also inside what is compressed."""
    found = list[Path]()
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        content = path.read_bytes()
        with suppress(DataLoss):
            content += b"".join(event.payload or b"" for event in unpacked(content))
        if MARKER in content:
            found.append(path)
    return found


def test_the_same_events_make_the_same_archive_and_come_back_as_they_were() -> None:
    events = [
        StoredEvent("R", seq, "A", 3, 7, 1_700_000_000_000 + seq, payload, b"d" * 32, b"p" * 32, b"h" * 32)
        for seq, payload in enumerate((b"", None, b"x" * 500), 1)
    ]
    assert unpacked(packed("R", events)) == tuple(events)
    assert digest_of(packed("R", events)) == digest_of(packed("R", events))
    with pytest.raises(DataLoss):
        unpacked(b"something else")


async def test_what_is_erased_while_it_is_being_archived_does_not_come_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await world.ended(EventDraft(7, MARKER))
    put, erased = world.blobs.put, list[str]()

    async def erased_meanwhile(data: bytes, *, expected: str | None = None) -> Blob:
        if not erased:
            erased.append((await world.journal.erase(world.erase(run))).erasure_id)
        return await put(data, expected=expected)

    monkeypatch.setattr(world.blobs, "put", erased_meanwhile)
    await world.journal.archive(run.run_id)
    monkeypatch.undo()
    await scrubbed(world)
    assert erased
    assert all(event.payload is None for event in await world.journal.read(run.run_id))
    stored = [await world.blobs.get(digest) async for digest in world.blobs.digests()]
    assert not any(MARKER in (event.payload or b"") for file in stored for event in unpacked(file))
