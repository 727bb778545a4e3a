from control.orchestrator.run_clock import RunClock
from infra.clock import ManualClock


async def test_a_run_goes_on_from_its_last_event_when_its_new_owners_clock_is_behind() -> None:
    machine = ManualClock()
    time, wrote_ms = RunClock(machine), machine.now_ms() + 3_600_000
    time.not_before(wrote_ms)
    assert time.now_ms() == wrote_ms
    await machine.advance(2.5)
    assert time.now_ms() == wrote_ms + 2_500


async def test_the_time_of_a_run_does_not_go_back_with_the_machines_and_follows_it_once_it_has_caught_up() -> None:
    machine = ManualClock()
    time, began_ms = RunClock(machine), machine.now_ms()
    assert time.now_ms() == began_ms
    time.not_before(began_ms)
    machine.jump(-3600)
    await machine.advance(1)
    assert time.now_ms() >= began_ms
    machine.jump(7200)
    assert time.now_ms() == machine.now_ms()
