"""What is derived from a run is made again from its events alone."""

from dataclasses import replace

import pytest

from control.core.run import FOLD_VERSION
from control.journal import EventDraft, RunHead
from control.journal import snapshot as snapshot_module
from control.journal.refold import Refolded, refold, rewrite
from infra.errors import DataLoss, Precondition
from skyagent.mission.v1.mission_pb2 import MissionSpec
from skyagent.run.v1 import event_pb2 as ev
from tests.control.journal.world import TENANT, World

CREATED = ev.EventBody(run_created=ev.RunCreated(tenant=TENANT, spec=MissionSpec(goal="enter them")))
OWNED = ev.EventBody(owner_changed=ev.OwnerChanged(node_id="node-1"))
ENDED = ev.EventBody(run_finished=ev.RunFinished(phase=ev.RUN_PHASE_SUCCEEDED))


async def written(world: World, *bodies: ev.EventBody) -> RunHead:
    """A run of these events, each of its own commit."""
    new = replace(world.new_run(), fold_version=FOLD_VERSION, events=(EventDraft.of(bodies[0]),))
    run = await world.journal.create_run(new)
    for body in bodies[1:]:
        await world.journal.append(world.result(run, EventDraft.of(body)))
        run = await world.journal.head(run.run_id)
    return run


async def refolded(world: World, run: RunHead, kept_seq: int | None, *seen: list[ev.EventBody]) -> Refolded:
    shown = seen[0] if seen else list[ev.EventBody]()
    return await world.db.transact(lambda connection: refold(connection, run, kept_seq, shown.append))


async def test_every_event_is_folded_and_shown_in_order(world: World) -> None:
    run = await written(world, CREATED, OWNED, ENDED)
    seen: list[ev.EventBody] = []
    found = await refolded(world, run, None, seen)
    assert seen == [CREATED, OWNED, ENDED]
    assert (found.folded.state.seq, found.folded.state.phase, found.tenant) == (3, ev.RUN_PHASE_SUCCEEDED, TENANT)


@pytest.mark.parametrize(("kept_seq", "seq"), [(1, 1), (2, 2), (3, 3), (None, None), (0, None), (4, None)])
async def test_a_snapshot_is_made_where_one_stood_and_one_that_stood_nowhere_is_not(
    world: World, kept_seq: int | None, seq: int | None
) -> None:
    run = await written(world, CREATED, OWNED, OWNED)
    snapshot = (await refolded(world, run, kept_seq)).snapshot
    assert (snapshot and snapshot.seq) == seq
    if snapshot is not None:
        assert (snapshot.run_id, snapshot.fold_version) == (run.run_id, FOLD_VERSION)


async def test_without_one_a_snapshot_is_made_where_the_owner_would_have_kept_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await written(world, CREATED, OWNED, OWNED, OWNED)
    monkeypatch.setattr(snapshot_module, "FIRST_AFTER", 3)
    for kept_seq, seq in ((None, 3), (9, 3), (0, 3), (1, 1), (4, 4)):
        snapshot = (await refolded(world, run, kept_seq)).snapshot
        assert (kept_seq, snapshot and snapshot.seq) == (kept_seq, seq)
    monkeypatch.undo()
    ended = await written(world, CREATED, ENDED)
    snapshot = (await refolded(world, ended, None)).snapshot
    assert snapshot is not None
    assert snapshot.seq == 2


async def test_a_run_of_a_newer_fold_or_one_that_was_altered_is_not_folded(world: World) -> None:
    run = await written(world, CREATED, OWNED)
    with pytest.raises(Precondition) as refused:
        await refolded(world, replace(run, fold_version=FOLD_VERSION + 1), None)
    assert refused.value.reason == "FOLD_TOO_NEW"
    await world.db.transact(
        lambda connection: connection.exec_driver_sql("UPDATE run_events SET epoch = 9 WHERE seq = 2").rowcount
    )
    with pytest.raises(DataLoss) as lost:
        await refolded(world, run, None)
    assert lost.value.reason == "JOURNAL_ALTERED"


async def test_what_was_derived_takes_the_place_of_whatever_is_there(world: World) -> None:
    run = await written(world, CREATED, OWNED, ENDED)
    found = await refolded(world, run, 3)
    await world.db.transact(lambda connection: rewrite(connection, found))
    listing = await world.journal.listing(run.run_id, tenant=TENANT)
    assert listing.projection is not None
    assert (listing.projection.state, listing.projection.terminal) == ("RUN_PHASE_SUCCEEDED", True)
    assert listing.head.terminal
    assert await world.journal.load_snapshot(run.run_id, fold_version=FOLD_VERSION) == found.snapshot
