"""What the holder of workers' streams keeps for owners on other nodes: credits, presence, and answers about leases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.journal import Node
from control.orchestrator.links import Key, LocalLink, Wanted, WorkerLinks
from control.orchestrator.owner import Leases
from control.orchestrator.relay.leases import Questions
from control.orchestrator.relay.lending import RelayedOwner
from control.orchestrator.relay.reach import RelayedLink
from infra.clock import ManualClock
from infra.errors import Precondition
from skyagent.execution.v1 import relay_service_pb2 as relay
from skyagent.execution.v1 import worker_service_pb2 as wire
from tests.control.orchestrator.harness import control_plane, settings_in, worker

RUN = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def link(worker_id: str, room: int = 0, generation: int = 1) -> LocalLink:
    hello = wire.Hello(worker_id=worker_id, capabilities=wire.Capabilities(kind="noop"))
    return LocalLink(hello, f"session of {worker_id} {generation}", 0.0, generation, credits=room)


def relayed(worker_id: str, room: int, generation: int = 1) -> RelayedLink:
    hello = wire.Hello(worker_id=worker_id, capabilities=wire.Capabilities(kind="noop"))
    return RelayedLink(hello, f"relayed {generation}", 0.0, generation, credits=room, say=lambda _: None)


def links_of(*all_of_them: LocalLink | RelayedLink) -> WorkerLinks:
    return WorkerLinks({one.worker_id: one for one in all_of_them})


def owner_of(links: WorkerLinks, name: str = "other") -> RelayedOwner:
    owner = RelayedOwner(Node(name, "1"), links)
    owner.show(links.near())
    return owner


def want(preferred: str = "", priority: int = 0) -> relay.RelayWant:
    return relay.RelayWant(kind="noop", preferred=preferred, priority=priority)


async def lent(owner: RelayedOwner) -> list[str]:
    """Sessions of which it was told that a credit is its own, so far."""
    frames = await owner.outbox.take(256) if len(owner.outbox) else []
    return [frame.credits_lent.session_id for frame in frames if frame.HasField("credits_lent")]


async def test_what_an_owner_waits_for_is_lent_once_for_each_run_and_no_more_than_there_is() -> None:
    one = link("noop-1", room=2)
    owner = owner_of(links_of(one))
    owner.want([want(), want(), want()])
    assert (await lent(owner), one.credits) == ([one.session_id] * 2, 0)
    one.credits += 1
    owner.links.room_made()
    assert (await lent(owner), one.credits) == ([one.session_id], 0)
    one.credits += 1
    owner.links.room_made()
    assert (await lent(owner), one.credits) == ([], 1)


async def test_a_session_stays_on_its_worker_and_nothing_that_is_lent_here_is_lent_on() -> None:
    mine, other = link("noop-1"), link("noop-2", room=1)
    lent_to_us = relayed("noop-3", room=1)
    owner = owner_of(links_of(mine, other, lent_to_us))
    owner.want([want(preferred="noop-1")])
    assert await lent(owner) == []
    owner.want([want(), want()])
    assert await lent(owner) == [other.session_id]
    assert lent_to_us.credits == 1


async def test_a_run_of_another_node_that_matters_more_goes_before_one_of_our_own() -> None:
    one = link("noop-1")
    links = links_of(one)
    owner = owner_of(links)
    owner.want([want(priority=1)])
    one.credits = 1
    assert links.pick(Wanted("noop")) is None
    links.room_made()
    assert await lent(owner) == [one.session_id]


async def test_an_owner_that_was_lent_nothing_may_assign_nothing() -> None:
    one = link("noop-1", room=1)
    owner = owner_of(links_of(one))
    with pytest.raises(Precondition, match="was lent no credit"):
        owner.spend(one)


@given(
    st.lists(st.tuples(st.sampled_from(["want", "spend", "return", "close", "room", "result", "own"]), st.booleans()))
)
def test_however_owners_ask_return_spend_and_vanish_no_credit_is_made_or_lost(steps: list[tuple[str, bool]]) -> None:
    one = link("noop-1", room=2)
    links, given_by_worker, spent = links_of(one), 2, 0
    owners = [owner_of(links, "a"), owner_of(links, "b")]
    for what, which in steps:
        owner = owners[which]
        if what == "want":
            owner.want([want(), want()])
        elif what == "spend" and owner.lent(one):
            owner.spend(one)
            spent += 1
        elif what == "return":
            owner.give_back(one.session_id, 2)
        elif what == "close":
            owner.close()
            owners[which] = owner_of(links, owner.node.node_id)
        elif what == "room":
            one.credits += 1
            given_by_worker += 1
            links.room_made()
        elif what == "result":
            owner.lend_next(one)
        elif what == "own" and links.pick(Wanted("noop")) is one:
            one.credits -= 1
            spent += 1
        assert one.credits >= 0
        assert one.credits + spent + sum(owner.lent(one) for owner in owners) == given_by_worker
    for owner in owners:
        owner.close()
    assert one.credits + spent == given_by_worker


def test_the_stream_of_a_lower_generation_gives_way_and_never_comes_back() -> None:
    here, there = link("noop-1", generation=1), relayed("noop-1", room=0, generation=2)
    links = WorkerLinks()
    assert links.join(here)
    assert links.join(there)
    assert not links.join(here)
    assert links.by_id["noop-1"] is there


def test_a_worker_of_this_node_is_picked_before_one_that_is_lent() -> None:
    near, far = link("noop-1", room=1), relayed("noop-2", room=4)
    links = links_of(near, far)
    assert links.pick(Wanted("noop")) is near
    near.credits = 0
    assert links.pick(Wanted("noop")) is far


def key(step: int) -> wire.StepKey:
    return wire.StepKey(run_id=RUN, step_id=f"{RUN[:-1]}{step}", attempt=1, fence=wire.Fence(epoch=1))


class Answers:
    """The answers to heartbeats in the order in which they went out: what is renewed, and what nobody answered for."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[Key], list[Key]]] = []

    def __call__(self, leases: Sequence[wire.StepKey], unanswered: Sequence[wire.StepKey]) -> None:
        self.sent.append(([Key.of(one) for one in leases], [Key.of(one) for one in unanswered]))


async def test_what_no_owner_answers_for_is_neither_renewed_nor_over() -> None:
    clock = ManualClock()
    one, questions, answers = link("noop-1"), Questions(clock, patience=1.0), Answers()
    ours, theirs, gone, nobodys = (key(number) for number in range(4))
    owner = owner_of(links_of(one))
    questions.ask(one, [ours, theirs, gone, nobodys], Leases([ours], []), [owner], answers)
    questions.ask(one, [ours], Leases([ours], []), [owner], answers)  # can be answered at once, and has to wait
    assert answers.sent == []
    questions.answered(owner, relay.LeasesAnswered(question=1, held=[theirs], over=[gone]))
    assert answers.sent == [([Key.of(ours), Key.of(theirs)], [Key.of(nobodys)]), ([Key.of(ours)], [])]


@pytest.mark.parametrize("how", ["too late", "gone"])
async def test_an_owner_that_does_not_answer_holds_up_nobody_for_long(how: str) -> None:
    clock = ManualClock()
    one, questions, answers = link("noop-1"), Questions(clock, patience=1.0), Answers()
    owner = owner_of(links_of(one))
    questions.ask(one, [key(1)], Leases([], []), [owner], answers)
    questions.expire()
    assert answers.sent == []
    if how == "gone":
        questions.drop_owner(owner)
    else:
        await clock.advance(1.0)
        questions.expire()
    assert answers.sent == [([], [Key.of(key(1))])]


async def test_one_process_on_sqlite_makes_no_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made where there is but one node")

    for made in ("Routes", "Relays", "Neighbours", "Questions"):
        monkeypatch.setattr(f"control.orchestrator.relay.opening.{made}", refuse)
    settings = settings_in(tmp_path)
    async with control_plane(settings) as plane, worker(settings, plane.runtime.address):
        run_id = await plane.start(steps="3")
        assert (await plane.until_ended(run_id)).counts.steps_succeeded == 3
        assert await plane.journal.streams(["noop-1"]) == {}
        assert await plane.journal.beats() == {}
