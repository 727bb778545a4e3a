from control.journal import Node
from control.orchestrator.living import Living
from infra.clock import ManualClock

A, B = Node("a", "1"), Node("b", "1")


async def test_a_node_is_dead_once_its_beat_has_not_risen_for_the_ttl_by_our_own_clock() -> None:
    clock = ManualClock()
    living = Living(clock, ttl=2.0)
    assert living.dead({A: 7, B: 1}) == frozenset()
    await clock.advance(1.5)
    assert living.dead({A: 8, B: 1}) == frozenset()
    await clock.advance(0.5)
    assert living.dead({A: 9, B: 1}) == {B}
    assert living.dead({A: 9, B: 2}) == frozenset()


async def test_a_new_incarnation_has_all_its_time_and_the_old_one_is_forgotten() -> None:
    clock = ManualClock()
    living = Living(clock, ttl=2.0)
    living.dead({A: 7})
    await clock.advance(5.0)
    again = Node("a", "2")
    assert living.dead({again: 7}) == frozenset()
    await clock.advance(2.0)
    assert living.dead({again: 7}) == {again}
