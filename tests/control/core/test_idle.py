from control.core.idle import Idle
from skyagent.run.v1 import event_pb2 as ev

RUNNING, PAUSED, WAITING = ev.RUN_PHASE_RUNNING, ev.RUN_PHASE_PAUSED, ev.RUN_PHASE_WAITING


def test_pauses_and_questions_to_a_person_add_up_and_nothing_else_does() -> None:
    idle = Idle()
    for phase, time_ms in (
        *((RUNNING, 1_000), (PAUSED, 3_000), (PAUSED, 3_500), (RUNNING, 5_000)),
        *((RUNNING, 9_000), (WAITING, 10_000), (RUNNING, 10_100)),
    ):
        idle.after(phase, time_ms)
    assert (idle.ms, idle.until(20_000)) == (2_100, 2_100)


def test_a_run_that_stands_still_now_is_idle_up_to_now() -> None:
    idle = Idle()
    idle.after(RUNNING, 1_000)
    assert idle.until(2_000) == 0
    idle.after(WAITING, 2_000)
    idle.after(PAUSED, 2_500)
    assert (idle.until(2_600), idle.ms) == (600, 0)


def test_a_clock_that_went_back_takes_no_time_away() -> None:
    idle = Idle(ms=100)
    idle.after(PAUSED, 2_000)
    assert idle.until(1_000) == 100
