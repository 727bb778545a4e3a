import asyncio

import pytest

from infra.clock import ManualClock, SteadyClock, SystemClock


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock, woken = ManualClock(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        group.create_task(sleeper("late", 3))
        group.create_task(sleeper("early", 1))
        await clock.until_sleeping(2)
        await clock.advance(5)
    assert woken == [("early", 1), ("late", 3)]
    assert clock.monotonic() == 5


async def test_a_sleeper_stays_asleep_until_its_time_has_come() -> None:
    clock = ManualClock()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(clock.sleep(2))
        await clock.until_sleeping()
        await clock.advance(1.9)
        assert not task.done()
        await clock.advance(0.1)
        assert task.done()


async def test_a_loop_that_sleeps_again_is_seen_sleeping_again() -> None:
    clock, rounds = ManualClock(), list[int]()

    async def loop() -> None:
        while True:
            rounds.append(clock.now_ms())
            await clock.sleep(1)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(loop())
        for _ in range(3):
            await clock.until_sleeping()
            await clock.advance(1)
        await clock.until_sleeping()
        task.cancel()
    assert [later - rounds[0] for later in rounds] == [0, 1000, 2000, 3000]


async def test_a_cancelled_sleeper_is_not_counted_as_sleeping() -> None:
    clock = ManualClock()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(clock.sleep(1))
        await clock.until_sleeping()
        task.cancel()
    assert clock.sleeping == 0


def test_a_jump_of_the_wall_clock_leaves_monotonic_time_alone() -> None:
    clock = ManualClock(start_ms=1000)
    clock.jump(-0.5)
    assert (clock.now_ms(), clock.monotonic()) == (500, 0)


def test_the_system_clock_never_runs_backwards() -> None:
    clock = SystemClock()
    times = [clock.monotonic() for _ in range(100)]
    assert times == sorted(times)


@pytest.mark.parametrize("jump", [3_600, -3_600])
async def test_a_steady_clock_follows_one_that_was_set_a_tenth_faster_or_slower_until_both_agree(jump: int) -> None:
    machine = ManualClock()
    steady = SteadyClock(machine)
    began_ms = steady.now_ms()
    machine.jump(jump)
    assert steady.now_ms() == began_ms
    await machine.advance(100)
    assert steady.now_ms() - began_ms == pytest.approx(110_000 if jump > 0 else 90_000, abs=2)
    await machine.advance(36_000)
    assert steady.now_ms() == pytest.approx(machine.now_ms(), abs=2)


def test_a_steady_clock_believes_at_once_that_the_machine_slept_for_long() -> None:
    machine = ManualClock()
    steady = SteadyClock(machine)
    machine.jump(8 * 3_600)
    assert steady.now_ms() == machine.now_ms()
