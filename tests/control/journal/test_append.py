import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from control.journal import (
    Append,
    CommandNotPending,
    ControlMoved,
    EventDraft,
    Projection,
    RunNotFound,
    StaleHead,
    StaleOwner,
)
from infra.errors import Internal, InvalidArgument
from tests.control.journal.world import INTENT, RESULT, TENANT, World, opened


async def test_events_get_the_next_numbers_the_epoch_and_one_time(world: World) -> None:
    run = await world.owned()
    await world.clock.advance(5)
    appended = await world.journal.append(world.result(run, RESULT, INTENT))
    stored = await world.journal.read(run.run_id, after_seq=run.head_seq)
    assert [(e.seq, e.kind, e.payload, e.epoch) for e in stored] == [(2, 7, b"result", 1), (3, 5, b"intent", 1)]
    assert {e.time_ms for e in stored} == {world.clock.now_ms()} == {appended.time_ms}
    assert (appended.seq, appended.hash) == (3, stored[-1].hash)


async def test_the_head_names_the_last_event_and_its_hash(world: World) -> None:
    run = await world.owned()
    appended = await world.journal.append(world.result(run))
    head = await world.journal.head(run.run_id)
    assert (head.head_seq, head.head_hash) == (appended.seq, appended.hash)


async def test_an_old_head_is_refused_and_told_the_present_one(world: World) -> None:
    run = await world.owned()
    await world.journal.append(world.result(run))
    with pytest.raises(StaleHead) as refused:
        await world.journal.append(world.result(run))
    assert refused.value.head_seq == 2
    assert len(await world.journal.read(run.run_id)) == 2


async def test_a_head_ahead_of_the_journal_is_refused(world: World) -> None:
    run = await world.owned()
    with pytest.raises(StaleHead):
        await world.journal.append(replace(world.result(run), expect_seq=7))


async def test_a_former_owner_is_refused_even_at_the_right_head(world: World) -> None:
    run = await world.owned()
    await world.taken_over()
    with pytest.raises(StaleOwner) as refused:
        await world.journal.append(world.result(run))
    assert refused.value.epoch == 2
    assert (await world.journal.head(run.run_id)).head_seq == run.head_seq


async def test_an_epoch_of_the_future_is_refused(world: World) -> None:
    run = await world.owned()
    with pytest.raises(StaleOwner):
        await world.journal.append(replace(world.result(run), epoch=run.epoch + 1))


async def test_after_a_command_an_intent_that_does_not_know_it_is_refused(world: World) -> None:
    run = await world.owned()
    await world.told(run)
    with pytest.raises(ControlMoved) as refused:
        await world.journal.append(world.intent(run))
    assert refused.value.control_gen == 1
    assert (await world.journal.head(run.run_id)).head_seq == run.head_seq


async def test_after_a_command_a_result_is_still_taken(world: World) -> None:
    run = await world.owned()
    await world.told(run)
    assert (await world.journal.append(world.result(run))).seq == 2


async def test_an_intent_that_knows_every_command_is_taken(world: World) -> None:
    run = await world.owned()
    receipt = await world.told(run)
    intent = replace(world.intent(run), control_gen=receipt.control_gen)
    assert (await world.journal.append(intent)).seq == 2


async def test_a_pause_in_the_same_batch_stops_the_intent(world: World) -> None:
    run = await world.owned()
    async with world.stalled():
        intent = asyncio.ensure_future(world.journal.append(world.intent(run)))
        await asyncio.sleep(0)
        pause = asyncio.ensure_future(world.told(run))
        await asyncio.sleep(0)
    assert (await pause).control_gen == 1
    with pytest.raises(ControlMoved):
        await intent


async def test_the_same_append_again_returns_what_it_wrote(world: World) -> None:
    run = await world.owned()
    append = world.result(run, RESULT, INTENT)
    first = await world.journal.append(append)
    await world.clock.advance(1)
    assert await world.journal.append(append) == first
    assert (await world.journal.head(run.run_id)).head_seq == 3


async def test_a_known_append_is_recognised_before_anything_else_is_wrong(world: World) -> None:
    run = await world.owned()
    intent = world.intent(run)
    first = await world.journal.append(intent)
    await world.journal.append(Append(run.run_id, run.epoch, first.seq, (RESULT,), world.ids.ulid()))
    await world.told(run)
    await world.taken_over()
    assert await world.journal.append(intent) == first


async def test_the_owner_is_looked_at_before_the_commands_and_those_before_the_head(world: World) -> None:
    run = await world.owned()
    await world.journal.append(world.result(run))
    await world.told(run)
    with pytest.raises(ControlMoved):
        await world.journal.append(world.intent(run))
    await world.taken_over()
    with pytest.raises(StaleOwner):
        await world.journal.append(world.intent(run))


async def test_of_many_appends_at_one_head_exactly_one_is_written(world: World) -> None:
    run = await world.owned()
    appends = [world.result(run) for _ in range(20)]
    outcomes = await asyncio.gather(*map(world.journal.append, appends), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1
    assert all(isinstance(outcome, StaleHead) for outcome in outcomes if isinstance(outcome, BaseException))
    assert (await world.journal.verify(run.run_id)).bad_seq is None


async def test_a_row_of_appends_sent_together_is_written_in_order(world: World) -> None:
    run = await world.owned()
    appends = [replace(world.result(run), expect_seq=1 + n) for n in range(50)]
    written = await asyncio.gather(*map(world.journal.append, appends))
    assert [each.seq for each in written] == list(range(2, 52))


async def test_an_append_to_no_run_is_refused(world: World) -> None:
    with pytest.raises(RunNotFound):
        await world.journal.append(Append(world.ids.ulid(), 1, 0, (RESULT,), world.ids.ulid()))


async def test_an_append_of_nothing_is_refused(world: World) -> None:
    run = await world.owned()
    with pytest.raises(InvalidArgument) as refused:
        await world.journal.append(replace(world.result(run), events=()))
    assert refused.value.violations[0].field == "events"


async def test_a_poisoned_append_fails_alone_among_those_of_its_batch(world: World) -> None:
    runs = [await world.owned() for _ in range(20)]
    appends = [world.result(run) for run in runs]
    poisoned = {3, 4, 17}
    for n in poisoned:
        appends[n] = replace(appends[n], events=(EventDraft(2**63, b"no such kind fits the column"),))
    async with world.stalled():
        writing = [asyncio.ensure_future(world.journal.append(append)) for append in appends]
        await asyncio.sleep(0)
    outcomes = await asyncio.gather(*writing, return_exceptions=True)
    assert {n for n, outcome in enumerate(outcomes) if isinstance(outcome, Internal)} == poisoned
    heads = [await world.journal.head(run.run_id) for run in runs]
    assert {n for n, head in enumerate(heads) if head.head_seq == 1} == poisoned
    for run in runs:
        assert (await world.journal.verify(run.run_id)).bad_seq is None


async def test_cancelling_the_waiter_does_not_cancel_the_append(world: World) -> None:
    run = await world.owned()
    append = world.result(run)
    async with world.stalled():
        waiter = asyncio.ensure_future(world.journal.append(append))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    assert [event.append_id for event in await world.journal.read(run.run_id, after_seq=1)] == [append.append_id]
    assert (await world.journal.append(append)).seq == 2


async def test_a_command_is_applied_once(world: World) -> None:
    run = await world.owned()
    receipt = await world.told(run)
    written = await world.journal.append(replace(world.result(run), applied_commands=(receipt.cmd_id,)))
    assert await world.journal.pending_commands(run.run_id) == ()
    again = replace(world.result(run), expect_seq=written.seq, applied_commands=(receipt.cmd_id,))
    with pytest.raises(CommandNotPending):
        await world.journal.append(again)
    assert (await world.journal.head(run.run_id)).head_seq == written.seq


async def test_a_command_is_not_applied_when_its_append_is_refused(world: World) -> None:
    run = await world.owned()
    receipt = await world.told(run)
    with pytest.raises(StaleHead):
        await world.journal.append(replace(world.result(run), expect_seq=9, applied_commands=(receipt.cmd_id,)))
    assert [command.cmd_id for command in await world.journal.pending_commands(run.run_id)] == [receipt.cmd_id]


async def test_a_command_of_another_run_cannot_be_applied(world: World) -> None:
    mine, other = await world.owned(), await world.owned()
    receipt = await world.told(other)
    with pytest.raises(CommandNotPending):
        await world.journal.append(replace(world.result(mine), applied_commands=(receipt.cmd_id,)))
    assert len(await world.journal.pending_commands(other.run_id)) == 1


async def test_a_projection_is_listed_with_the_append_that_brought_it(world: World) -> None:
    run = await world.owned()
    projection = Projection("RUNNING", b"state")
    await world.journal.append(replace(world.result(run), projection=projection))
    assert (await world.journal.listing(run.run_id, tenant=TENANT)).projection == projection


async def test_an_ended_run_takes_no_commands_but_still_takes_a_late_result(world: World) -> None:
    run = await world.owned()
    ended = replace(world.result(run), projection=Projection("SUCCEEDED", b"", terminal=True))
    written = await world.journal.append(ended)
    assert (await world.journal.head(run.run_id)).terminal
    late = replace(world.result(run), expect_seq=written.seq)
    assert (await world.journal.append(late)).seq == written.seq + 1


async def test_the_owners_own_time_is_kept(world: World) -> None:
    run = await world.owned()
    question = world.question()
    append = replace(world.result(run), time_ms=1234, new_approvals=(question,))
    assert (await world.journal.append(append)).time_ms == 1234
    (event,) = await world.journal.read(run.run_id, after_seq=1)
    assert (event.time_ms, (await world.journal.approval(question.approval_id)).requested_ms) == (1234, 1234)


async def test_an_append_whose_outcome_got_lost_with_the_process_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "lost.db"
    async with opened(path) as world:
        append = world.result(await world.owned())
        written = await world.journal.append(append)
    async with opened(path, seed=8) as world:
        await world.taken_over()
        assert await world.journal.append(append) == written
        with pytest.raises(StaleOwner):
            await world.journal.append(replace(append, append_id=world.ids.ulid()))


async def test_a_negative_number_is_refused_and_moves_nothing(world: World) -> None:
    run = await world.owned()
    for wrong in ({"expect_seq": -5}, {"epoch": -1}, {"time_ms": -1}):
        with pytest.raises(Internal):
            await world.journal.append(replace(world.result(run), **wrong))
    assert (await world.journal.head(run.run_id)).head_seq == run.head_seq
