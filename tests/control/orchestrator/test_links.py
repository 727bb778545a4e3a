import asyncio
from contextlib import ExitStack

from control.orchestrator.links import Key, LocalLink, Wanted, WorkerLink, WorkerLinks
from infra.digest import digest_message, digest_of
from skyagent.execution.v1 import worker_service_pb2 as wire
from skyagent.execution.v1.action_pb2 import Action, NoopAction


def link(worker_id: str, room: int, kind: str = "noop") -> LocalLink:
    hello = wire.Hello(worker_id=worker_id, capabilities=wire.Capabilities(kind=kind))
    return LocalLink(hello, "session", 0.0, credits=room)


def links_of(*all_of_them: WorkerLink) -> WorkerLinks:
    return WorkerLinks({one.worker_id: one for one in all_of_them})


def woken_of(links: WorkerLinks, *wanted: Wanted) -> list[bool]:
    """Who is woken of those that wait for a worker of a kind, with one that they prefer."""
    events = [asyncio.Event() for _ in wanted]
    with ExitStack() as waiting:
        for event, one in zip(events, wanted, strict=True):
            waiting.enter_context(links.waiting_for_room(event, one))
        links.room_made()
    return [event.is_set() for event in events]


def test_as_many_are_woken_as_there_is_room_for_and_the_longest_waiting_first() -> None:
    links = links_of(link("noop-1", 1), link("noop-2", 1))
    assert woken_of(links, Wanted("noop", ""), Wanted("noop", ""), Wanted("noop", "")) == [True, True, False]
    assert [one.credits for one in links.by_id.values()] == [1, 1]


def test_who_waits_for_a_full_worker_does_not_take_the_turn_of_another() -> None:
    links = links_of(link("noop-1", 0), link("noop-2", 1), link("browser-1", 1, "browser"))
    assert woken_of(links, Wanted("noop", "noop-1"), Wanted("noop", ""), Wanted("browser", "")) == [False, True, True]


def test_the_higher_priority_is_woken_first_however_long_others_waited() -> None:
    links = links_of(link("noop-1", 1))
    assert woken_of(links, Wanted("noop", "", 0), Wanted("noop", "", 2), Wanted("noop", "", 1)) == [False, True, False]


def test_what_a_run_of_higher_priority_waits_for_is_not_picked_by_another() -> None:
    one, other = link("noop-1", 1), link("noop-2", 0)
    links = links_of(one, other)
    with links.waiting_for_room(asyncio.Event(), Wanted("noop", priority=1)):
        assert links.pick(Wanted("noop")) is None
        assert links.pick(Wanted("noop", priority=1)) is one
        assert links.pick(Wanted("noop", priority=2)) is one
    with links.waiting_for_room(asyncio.Event(), Wanted("noop", "noop-2", priority=1)):
        assert links.pick(Wanted("noop")) is one
    assert (one.credits, other.credits) == (1, 0)


def test_tenants_take_turns_whatever_one_of_them_says_of_its_priority() -> None:
    links = links_of(link("noop-1", 1))
    busy, other = Wanted("noop", priority=9, tenant="busy"), Wanted("noop", tenant="other")
    links.turns.served("busy")
    assert woken_of(links, busy, busy, other) == [False, False, True]
    with links.waiting_for_room(asyncio.Event(), other):
        assert links.pick(busy) is None
    assert links.pick(busy) is not None


def test_nobody_is_woken_who_waits_no_more() -> None:
    links, event = links_of(link("noop-1", 1)), asyncio.Event()
    with links.waiting_for_room(event, Wanted("noop")):
        pass
    links.room_made()
    assert not event.is_set()


async def test_who_wants_exact_actions_gets_the_bytes_that_the_digest_is_of_and_others_do_not() -> None:
    action = Action(noop=NoopAction(payload=b"exactly"))
    for exact in (True, False):
        to = link("noop-1", 1)
        to.hello.capabilities.exact_actions = exact
        to.assign(Key("run", "step", 1), wire.Assign(action=action, action_digest=digest_message(action)))
        (sent,) = await to.outbox.take(1)
        assert (
            digest_of(sent.assign.action_bytes) == sent.assign.action_digest if exact else not sent.assign.action_bytes
        )
