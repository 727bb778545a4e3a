import asyncio
from dataclasses import replace

import pytest

from control.journal import Command, IdReused, Projection, RunEnded, RunNotFound
from tests.control.journal.world import TENANT, World


def pause(world: World, run_id: str) -> Command:
    return Command(world.ids.uuid(), run_id, TENANT, "pause", "ann", b"why")


async def test_each_command_raises_the_control_generation_by_one(world: World) -> None:
    run = await world.owned()
    receipts = [await world.journal.command(pause(world, run.run_id)) for _ in range(3)]
    assert [receipt.control_gen for receipt in receipts] == [1, 2, 3]
    assert (await world.journal.head(run.run_id)).control_gen == 3


async def test_commands_wait_in_the_order_in_which_they_were_given(world: World) -> None:
    run = await world.owned()
    given = [pause(world, run.run_id) for _ in range(3)]
    for command in given:
        await world.journal.command(command)
    waiting = await world.journal.pending_commands(run.run_id)
    assert [(c.cmd_id, c.payload, c.actor, c.applied_seq) for c in waiting] == [
        (command.cmd_id, b"why", "ann", None) for command in given
    ]


async def test_the_same_command_again_changes_nothing(world: World) -> None:
    run = await world.owned()
    command = pause(world, run.run_id)
    first = await world.journal.command(command)
    await world.clock.advance(1)
    again = await world.journal.command(command)
    assert again == replace(first, replayed=True)
    assert (await world.journal.head(run.run_id)).control_gen == 1


async def test_the_same_command_sent_twice_at_once_is_one(world: World) -> None:
    run = await world.owned()
    command = pause(world, run.run_id)
    receipts = await asyncio.gather(*(world.journal.command(command) for _ in range(5)))
    assert {receipt.control_gen for receipt in receipts} == {1}
    assert sum(not receipt.replayed for receipt in receipts) == 1


@pytest.mark.parametrize("other", [{"kind": "cancel"}, {"payload": b"x"}])
async def test_an_id_used_for_another_command_is_refused(world: World, other: dict[str, str]) -> None:
    run = await world.owned()
    command = pause(world, run.run_id)
    await world.journal.command(command)
    with pytest.raises(IdReused):
        await world.journal.command(replace(command, **other))


async def test_an_id_used_for_another_run_is_refused(world: World) -> None:
    run, other = await world.owned(), await world.owned()
    command = pause(world, run.run_id)
    await world.journal.command(command)
    with pytest.raises(IdReused):
        await world.journal.command(replace(command, run_id=other.run_id))


async def test_another_tenants_run_cannot_be_commanded(world: World) -> None:
    run = await world.owned()
    with pytest.raises(RunNotFound):
        await world.journal.command(replace(pause(world, run.run_id), tenant="other"))
    assert (await world.journal.head(run.run_id)).control_gen == 0


async def test_a_run_that_ended_takes_no_new_command_but_answers_for_an_old_one(world: World) -> None:
    run = await world.owned()
    old = pause(world, run.run_id)
    await world.journal.command(old)
    await world.journal.append(replace(world.result(run), projection=Projection("FAILED", b"", terminal=True)))
    assert (await world.journal.command(old)).replayed
    with pytest.raises(RunEnded):
        await world.journal.command(pause(world, run.run_id))


async def test_a_command_survives_that_its_sender_went_away(world: World) -> None:
    run = await world.owned()
    async with world.stalled():
        sender = asyncio.ensure_future(world.journal.command(pause(world, run.run_id)))
        await asyncio.sleep(0)
        sender.cancel()
    assert len(await world.journal.pending_commands(run.run_id)) == 1


async def test_new_runs_commands_and_releases_wake_who_listens(world: World) -> None:
    wakes = world.journal.wakes()
    first = asyncio.ensure_future(anext(wakes))
    await asyncio.sleep(0)
    run = await world.created()
    assert await first == run.run_id
    await world.told(run)
    assert await anext(wakes) == run.run_id
    await world.journal.release(run.run_id, run.epoch)
    assert await anext(wakes) == run.run_id
    await wakes.aclose()


async def test_wakes_of_one_run_are_told_once_until_they_are_taken(world: World) -> None:
    run, other = await world.created(), await world.created()
    wakes = world.journal.wakes()
    first = asyncio.ensure_future(anext(wakes))
    await asyncio.sleep(0)
    async with world.stalled():
        for told in (run, run, other, run):
            asyncio.ensure_future(world.told(told))  # noqa: RUF006 (awaited by what it wakes)
        await asyncio.sleep(0)
    assert [await first, await anext(wakes)] == [run.run_id, other.run_id]
    await wakes.aclose()


async def test_a_run_that_was_there_already_wakes_nobody(world: World) -> None:
    new = world.new_run()
    await world.journal.create_run(new)
    wakes = world.journal.wakes()
    first = asyncio.ensure_future(anext(wakes))
    await asyncio.sleep(0)
    await world.journal.create_run(new)
    other = await world.created()
    assert await first == other.run_id
    await wakes.aclose()
