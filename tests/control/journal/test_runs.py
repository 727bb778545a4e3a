import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import insert, select, update

from control.journal import (
    EventDraft,
    ForkPoint,
    Holder,
    IdReused,
    NewRun,
    Node,
    Projection,
    Pulse,
    RunNotFound,
    RunQuery,
    Snapshot,
)
from control.journal.schema import nodes, snapshots
from infra.errors import InvalidArgument, Precondition
from tests.control.journal.world import TENANT, World


async def test_a_new_run_has_its_first_events_and_no_owner(world: World) -> None:
    new = replace(world.new_run(), events=(EventDraft(1, b"a"), EventDraft(3, b"b")))
    head = await world.journal.create_run(new)
    assert (head.head_seq, head.epoch, head.control_gen, head.owner_node, head.terminal) == (2, 0, 0, None, False)
    assert [(e.seq, e.kind, e.payload) for e in await world.journal.read(new.run_id)] == [(1, 1, b"a"), (2, 3, b"b")]
    assert (await world.journal.verify(new.run_id)).bad_seq is None


async def test_the_same_creation_again_returns_the_run_that_exists(world: World) -> None:
    new = world.new_run()
    await world.journal.create_run(new)
    (owned,) = await world.journal.claim(world.node, fold_version=1, limit=1)
    written = await world.journal.append(world.result(owned))
    again = await world.journal.create_run(new)
    assert (again.epoch, again.head_seq) == (1, written.seq)


async def test_the_same_request_of_a_tenant_creates_one_run(world: World) -> None:
    request_id = world.ids.uuid()
    asked = [replace(world.new_run(), request_id=request_id) for _ in range(5)]
    heads = await asyncio.gather(*map(world.journal.create_run, asked))
    assert len({head.run_id for head in heads}) == 1


async def test_the_same_request_id_of_two_tenants_creates_two_runs(world: World) -> None:
    request_id = world.ids.uuid()
    heads = [await world.journal.create_run(replace(world.new_run(t), request_id=request_id)) for t in ("a", "b")]
    assert heads[0].run_id != heads[1].run_id


async def test_a_run_id_used_for_another_run_is_refused(world: World) -> None:
    new = world.new_run()
    await world.journal.create_run(new)
    with pytest.raises(IdReused):
        await world.journal.create_run(replace(new, append_id=world.ids.ulid()))


async def test_a_run_without_events_is_refused(world: World) -> None:
    with pytest.raises(InvalidArgument):
        await world.journal.create_run(replace(world.new_run(), events=()))


async def test_what_the_caller_writes_with_a_run_is_there_with_it_and_once(world: World) -> None:
    new = world.new_run()
    mark = insert(nodes).values(node_id="mark", incarnation="x", beat=0)
    await world.journal.create_run(new, also=[mark])
    await world.journal.create_run(new, also=[mark])
    assert await world.db.read(lambda c: c.execute(select(nodes.c.node_id)).scalars().all()) == ["mark"]


async def test_a_run_is_not_there_when_what_the_caller_writes_with_it_fails(world: World) -> None:
    new = world.new_run()
    mark = insert(nodes).values(node_id="mark", incarnation="x", beat=0)
    with pytest.raises(Exception, match=r"(?i)unique"):
        await world.journal.create_run(new, also=[mark, mark])
    with pytest.raises(RunNotFound):
        await world.journal.head(new.run_id)


async def forked(world: World) -> NewRun:
    parent = await world.owned()
    event = (await world.journal.read(parent.run_id))[0]
    return replace(world.new_run(), parent=ForkPoint(parent.run_id, event.seq, event.hash))


async def test_a_fork_is_chained_to_the_event_it_grew_from(world: World) -> None:
    new = await forked(world)
    assert new.parent is not None
    fork = await world.journal.create_run(new)
    assert (await world.journal.verify(fork.run_id)).bad_seq is None
    same = await world.journal.create_run(replace(world.new_run(), events=new.events))
    assert (await world.journal.read(same.run_id))[0].prev_hash != (await world.journal.read(fork.run_id))[0].prev_hash


async def test_a_fork_point_must_exist_with_its_hash_in_the_same_tenant(world: World) -> None:
    new = await forked(world)
    assert new.parent is not None
    for wrong in (
        replace(new, parent=replace(new.parent, hash=bytes(32))),
        replace(new, parent=replace(new.parent, seq=9)),
    ):
        with pytest.raises(Precondition):
            await world.journal.create_run(wrong)
    with pytest.raises(RunNotFound):
        await world.journal.create_run(replace(new, tenant="other"))


async def test_a_claim_raises_the_epoch_and_names_the_owner(world: World) -> None:
    run = await world.created()
    (claimed,) = await world.journal.claim(world.node, fold_version=1, limit=10)
    assert (claimed.run_id, claimed.epoch) == (run.run_id, 1)
    assert (claimed.owner_node, claimed.owner_incarnation) == (world.node.node_id, world.node.incarnation)


async def test_what_is_owned_is_not_claimed_again_by_its_owner(world: World) -> None:
    await world.owned()
    assert await world.journal.claim(world.node, fold_version=1, limit=10) == ()


async def test_a_new_incarnation_of_the_same_node_claims_what_the_old_one_had(world: World) -> None:
    await world.owned()
    (claimed,) = await world.journal.claim(Node(world.node.node_id, world.ids.uuid()), fold_version=1, limit=10)
    assert claimed.epoch == 2


async def test_a_run_of_a_newer_fold_is_left_to_a_newer_node(world: World) -> None:
    new = replace(world.new_run(), fold_version=2)
    await world.journal.create_run(new)
    assert await world.journal.claim(world.node, fold_version=1, limit=10) == ()
    assert len(await world.journal.claim(world.node, fold_version=2, limit=10)) == 1


async def test_what_a_newer_node_has_claimed_an_older_one_does_not_take_back(world: World) -> None:
    run = await world.created()
    (claimed,) = await world.journal.claim(world.node, fold_version=2, limit=10)
    assert (run.fold_version, claimed.fold_version) == (1, 2)
    await world.journal.release(run.run_id, claimed.epoch)
    older = Node("node-2", world.ids.uuid())
    assert await world.journal.claim(older, fold_version=1, limit=10) == ()
    (again,) = await world.journal.claim(world.node, fold_version=2, limit=10)
    assert (again.epoch, again.fold_version) == (2, 2)


async def test_an_ended_run_is_not_claimed(world: World) -> None:
    run = await world.owned()
    await world.journal.append(replace(world.result(run), projection=Projection("FAILED", b"", terminal=True)))
    assert await world.taken_over() == ()


async def test_no_more_runs_are_claimed_than_asked_for_the_oldest_first(world: World) -> None:
    runs = [await world.created() for _ in range(5)]
    claimed = await world.journal.claim(world.node, fold_version=1, limit=2)
    assert [head.run_id for head in claimed] == [run.run_id for run in runs[:2]]


async def test_a_released_run_can_be_claimed_again_at_once(world: World) -> None:
    run = await world.owned()
    await world.journal.release(run.run_id, run.epoch)
    (claimed,) = await world.journal.claim(world.node, fold_version=1, limit=10)
    assert claimed.epoch == run.epoch + 1


async def test_a_former_owner_cannot_release(world: World) -> None:
    run = await world.owned()
    (now,) = await world.taken_over()
    await world.journal.release(run.run_id, run.epoch)
    assert (await world.journal.head(run.run_id)).owner_node == now.owner_node


async def test_a_new_log_generation_takes_every_run_from_its_owner(world: World) -> None:
    run = await world.owned()
    assert (run.log_generation, await world.journal.begin_generation()) == (1, 2)
    (claimed,) = await world.journal.claim(world.node, fold_version=1, limit=10)
    assert (claimed.log_generation, claimed.epoch) == (2, run.epoch + 1)
    assert await world.journal.log_generation() == 2


async def test_a_new_log_generation_forgets_the_nodes_of_the_former(world: World) -> None:
    assert [await world.journal.beat(world.node) for _ in range(2)] == [1, 2]
    await world.journal.begin_generation()
    assert await world.journal.beat(world.node) == 1


async def test_beats_rise(world: World) -> None:
    other = Node("node-2", world.ids.uuid())
    assert [await world.journal.beat(node) for node in (world.node, world.node, other)] == [1, 2, 1]


async def test_a_node_says_where_it_is_reached_and_again_when_that_changes(world: World) -> None:
    await world.journal.beat(world.node, address="10.0.0.1:7701")
    await world.journal.beat(world.node, last=1, address="10.0.0.2:7701")
    assert await world.journal.beats() == {world.node: Pulse(2, "10.0.0.2:7701")}


async def test_taking_a_workers_stream_overtakes_whoever_had_it_on_whatever_node(world: World) -> None:
    other = Node("node-2", world.ids.uuid())
    taken = [await world.journal.take_stream("noop-1", "a", node) for node in (world.node, other, world.node)]
    assert taken == [1, 2, 3]
    await world.journal.take_stream("noop-2", "b", other)
    assert await world.journal.streams(["noop-1", "noop-2"]) == {
        "noop-1": Holder("node-1", 3),
        "noop-2": Holder("node-2", 1),
    }


async def test_the_end_of_an_overtaken_stream_says_nothing_of_the_present_one(world: World) -> None:
    for _ in range(2):
        await world.journal.take_stream("noop-1", "a", world.node)
    await world.journal.end_stream("noop-1", 1)
    assert await world.journal.streams(["noop-1"]) == {"noop-1": Holder("node-1", 2)}
    await world.journal.end_stream("noop-1", 2)
    assert await world.journal.streams(["noop-1"]) == {"noop-1": Holder("", 2)}
    assert await world.journal.take_stream("noop-1", "a", world.node) == 3


async def test_runs_are_listed_by_tenant_mission_and_state_newest_first(world: World) -> None:
    first, second = await world.owned(), await world.owned()
    await world.owned("other")
    await world.journal.append(replace(world.result(second), projection=Projection("PAUSED", b"state")))

    async def listed(query: RunQuery) -> list[str]:
        return [listing.head.run_id for listing in (await world.journal.runs(query)).runs]

    assert await listed(RunQuery(TENANT)) == [second.run_id, first.run_id]
    assert await listed(RunQuery(TENANT, states=("PAUSED",))) == [second.run_id]
    assert await listed(RunQuery(TENANT, mission_id=first.mission_id)) == [first.run_id]
    assert await listed(RunQuery(TENANT, mission_id="none")) == []


async def test_pages_of_runs_hold_each_once(world: World) -> None:
    runs = [await world.created() for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = await world.journal.runs(RunQuery(TENANT, page_size=2, page_token=token))
        seen += [listing.head.run_id for listing in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert seen == [run.run_id for run in reversed(runs)]


async def test_a_negative_page_size_is_refused(world: World) -> None:
    with pytest.raises(InvalidArgument):
        await world.journal.runs(RunQuery(TENANT, page_size=-1))


async def test_another_tenants_run_looks_like_none(world: World) -> None:
    run = await world.created()
    for look in (world.journal.head(run.run_id, tenant="other"), world.journal.listing(run.run_id, tenant="other")):
        with pytest.raises(RunNotFound):
            await look
    assert (await world.journal.head(run.run_id, tenant=TENANT)).run_id == run.run_id


async def test_events_are_read_from_a_cursor_up_to_a_limit(world: World) -> None:
    new = replace(world.new_run(), events=tuple(EventDraft(1, bytes([n])) for n in range(5)))
    await world.journal.create_run(new)
    assert [event.seq for event in await world.journal.read(new.run_id, after_seq=1, limit=3)] == [2, 3, 4]


async def test_dropped_projections_come_back_byte_for_byte(world: World) -> None:
    run = await world.owned()
    projection = Projection("SUCCEEDED", bytes(range(256)), terminal=True)
    written = await world.journal.append(replace(world.result(run), projection=projection))
    before = await world.journal.listing(run.run_id, tenant=TENANT)
    await world.journal.drop_projections()
    assert (await world.journal.listing(run.run_id, tenant=TENANT)).projection is None
    await world.journal.save_projection(run.run_id, written.seq, projection)
    assert await world.journal.listing(run.run_id, tenant=TENANT) == before


async def test_a_rebuilt_projection_does_not_overtake_a_later_one(world: World) -> None:
    run = await world.owned()
    written = await world.journal.append(replace(world.result(run), projection=Projection("NEW", b"new")))
    await world.journal.save_projection(run.run_id, written.seq - 1, Projection("OLD", b"old"))
    assert (await world.journal.listing(run.run_id, tenant=TENANT)).projection == Projection("NEW", b"new")


async def test_a_snapshot_is_loaded_as_saved_and_only_for_its_fold(world: World) -> None:
    snapshot = Snapshot(world.ids.ulid(), 7, 1, b"state")
    await world.journal.save_snapshot(snapshot)
    assert await world.journal.load_snapshot(snapshot.run_id, fold_version=1) == snapshot
    assert await world.journal.load_snapshot(snapshot.run_id, fold_version=2) is None


async def test_an_older_snapshot_does_not_replace_a_newer_one(world: World) -> None:
    newer = Snapshot(world.ids.ulid(), 7, 1, b"newer")
    await world.journal.save_snapshot(newer)
    await world.journal.save_snapshot(replace(newer, seq=6, state=b"older"))
    assert await world.journal.load_snapshot(newer.run_id, fold_version=1) == newer


async def test_a_snapshot_by_an_older_fold_does_not_replace_one_by_a_newer(world: World) -> None:
    newer = Snapshot(world.ids.ulid(), 7, 2, b"newer")
    await world.journal.save_snapshot(newer)
    await world.journal.save_snapshot(replace(newer, seq=8, fold_version=1, state=b"of an overtaken owner"))
    assert await world.journal.load_snapshot(newer.run_id, fold_version=2) == newer
    await world.journal.save_snapshot(replace(newer, seq=3, fold_version=3))
    assert await world.journal.load_snapshot(newer.run_id, fold_version=2) is None


async def test_a_damaged_snapshot_is_no_snapshot(world: World) -> None:
    snapshot = Snapshot(world.ids.ulid(), 7, 1, b"state")
    await world.journal.save_snapshot(snapshot)
    await world.db.transact(lambda connection: connection.execute(update(snapshots).values(state=b"\0")).close())
    assert await world.journal.load_snapshot(snapshot.run_id, fold_version=1) is None


async def test_a_page_that_holds_the_last_run_is_the_last_page(world: World) -> None:
    for _ in range(2):
        await world.created()
    page = await world.journal.runs(RunQuery(TENANT, page_size=2))
    assert (len(page.runs), page.next_page_token) == (2, "")


async def test_what_is_derived_from_other_runs_stays_when_one_is_erased(world: World) -> None:
    run, other = await world.ended(), await world.ended()
    for each in (run, other):
        await world.journal.save_snapshot(Snapshot(each.run_id, 2, 1, b"state"))
    await world.journal.erase(world.erase(run, 1))
    assert await world.journal.load_snapshot(run.run_id, fold_version=1) is None
    assert await world.journal.load_snapshot(other.run_id, fold_version=1) is not None
    kept = (await world.journal.listing(other.run_id, tenant=TENANT)).projection
    assert kept is not None
    assert kept.body == b"summary"
    assert [event.payload for event in await world.journal.read(other.run_id)] == [b"created", b"result"]


async def test_a_snapshot_of_one_run_does_not_replace_that_of_another(world: World) -> None:
    snapshots = [Snapshot(world.ids.ulid(), 7, 1, bytes([n])) for n in range(2)]
    for snapshot in snapshots:
        await world.journal.save_snapshot(snapshot)
    assert [await world.journal.load_snapshot(s.run_id, fold_version=1) for s in snapshots] == snapshots


async def test_dropping_projections_drops_snapshots_too(world: World) -> None:
    snapshot = Snapshot(world.ids.ulid(), 7, 1, b"state")
    await world.journal.save_snapshot(snapshot)
    await world.journal.drop_projections()
    assert await world.journal.load_snapshot(snapshot.run_id, fold_version=1) is None


async def test_a_snapshot_by_another_fold_takes_the_place_of_the_former(world: World) -> None:
    former = Snapshot(world.ids.ulid(), 7, 1, b"former")
    await world.journal.save_snapshot(former)
    await world.journal.save_snapshot(replace(former, seq=3, fold_version=2))
    assert await world.journal.load_snapshot(former.run_id, fold_version=2) is not None
    assert await world.journal.load_snapshot(former.run_id, fold_version=1) is None


async def test_heads_of_every_tenant_come_in_pages_oldest_first(world: World) -> None:
    runs = [await world.created(tenant) for tenant in ("a", "b", "a")]
    first = await world.journal.heads(limit=2)
    rest = await world.journal.heads(after=first[-1].run_id)
    assert [head.run_id for head in (*first, *rest)] == [run.run_id for run in runs]
