from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from control.core.fairness import Admission, Claimant, Queued, Turns

TENANTS = ("a", "b", "c")
WEIGHTS = st.fixed_dictionaries({tenant: st.sampled_from([0.5, 1.0, 2.0, 5.0]) for tenant in TENANTS})


def serve(turns: Turns, waiting: list[Claimant]) -> Claimant:
    one = waiting[turns.order(waiting)[0]]
    turns.served(one.tenant)
    return one


@given(weights=WEIGHTS, many=st.integers(1, 200))
def test_tenants_that_always_wait_are_served_by_their_weights(weights: dict[str, float], many: int) -> None:
    turns, waiting = Turns(weights), [Claimant(tenant) for tenant in TENANTS]
    served = Counter(serve(turns, waiting).tenant for _ in range(many))
    whole = sum(weights.values())
    for tenant in TENANTS:
        assert abs(served[tenant] - many * weights[tenant] / whole) <= len(TENANTS)


@given(weights=WEIGHTS, alone=st.integers(0, 500))
def test_who_comes_anew_neither_saved_up_turns_nor_pays_for_those_of_others(
    weights: dict[str, float], alone: int
) -> None:
    turns = Turns(weights)
    for _ in range(alone):
        serve(turns, [Claimant("a")])
    both = [Claimant("a"), Claimant("b")]
    many = 60
    served = Counter(serve(turns, both).tenant for _ in range(many))
    share = many * weights["b"] / (weights["a"] + weights["b"])
    assert abs(served["b"] - share) <= 2 + 1 / min(weights["a"], 1.0)


@given(st.lists(st.builds(Claimant, st.sampled_from(TENANTS), st.integers(-1000, 1000))))
def test_an_order_has_everybody_once_and_puts_what_matters_first_within_a_tenant(waiting: list[Claimant]) -> None:
    order = Turns().order(waiting)
    assert sorted(order) == list(range(len(waiting)))
    for tenant in TENANTS:
        priorities = [waiting[at].priority for at in order if waiting[at].tenant == tenant]
        assert priorities == sorted(priorities, reverse=True)


@given(weights=WEIGHTS, before=st.lists(st.sampled_from(TENANTS), max_size=60))
def test_no_tenant_starves_however_much_the_others_ask_for(weights: dict[str, float], before: list[str]) -> None:
    turns = Turns(weights)
    for tenant in before:
        turns.served(tenant)
    others = [Claimant(tenant, 1000) for tenant in ("b", "c") for _ in range(20)]
    bound = 2 + sum(weights.values()) * (1 / weights["a"] + 1 / min(weights.values())) * len(TENANTS)
    for turn in range(200):
        if serve(turns, [*others, Claimant("a", -1000)]).tenant == "a":
            assert turn <= bound
            return
    raise AssertionError("a was never served")


def test_who_comes_yields_to_a_tenant_that_is_behind_and_to_who_matters_more() -> None:
    turns = Turns()
    own = Claimant("a")
    assert not turns.yields(own, Claimant("b"))
    turns.served("a")
    assert turns.yields(own, Claimant("b"))
    assert not turns.yields(Claimant("b"), own)
    assert turns.yields(own, Claimant("a", 1))
    assert not turns.yields(own, Claimant("a"))


@given(
    queued=st.lists(st.sampled_from(TENANTS), max_size=40),
    active=st.dictionaries(st.sampled_from(TENANTS), st.integers(0, 6)),
    most=st.integers(1, 5),
    room=st.integers(0, 40),
    weights=WEIGHTS,
)
def test_a_limit_is_never_exceeded_and_no_room_is_left_that_somebody_could_have(
    queued: list[str], active: dict[str, int], most: int, room: int, weights: dict[str, float]
) -> None:
    runs = [Queued(f"{number:03}", tenant) for number, tenant in enumerate(queued)]
    chosen = Admission(most, weights).admitted(runs, active, room)
    tenant_of = {run.run_id: run.tenant for run in runs}
    begun = Counter(tenant_of[run_id] for run_id in chosen)
    assert len(chosen) == len(set(chosen)) <= room
    for tenant in TENANTS:
        waiting = [run.run_id for run in runs if run.tenant == tenant]
        able = min(len(waiting), max(0, most - active.get(tenant, 0)))
        assert begun[tenant] <= able
        assert [run_id for run_id in chosen if tenant_of[run_id] == tenant] == waiting[: begun[tenant]]
        assert len(chosen) == room or begun[tenant] == able
