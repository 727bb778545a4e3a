"""Between the journal and the contract: what is stored comes back as it was said, and folds to the same state."""

from dataclasses import replace

import pytest

from control.core.run import FOLD_VERSION
from control.journal import EventDraft, FoldTooNew, RunHead, Snapshot, StoredEvent
from control.journal.folding import event_of, folded_run, projection
from control.journal.snapshot import FIRST_AFTER, due
from infra.errors import DataLoss
from skyagent.mission.v1.mission_pb2 import MissionSpec
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from skyagent.run.v1.run_service_pb2 import RunSummary
from tests.control.journal.world import World

CREATED = ev.EventBody(run_created=ev.RunCreated(spec=MissionSpec(goal="enter them")))


def test_a_draft_carries_the_number_of_its_kind() -> None:
    draft = EventDraft.of(CREATED)
    assert draft.kind == ev.EventBody.RUN_CREATED_FIELD_NUMBER
    assert ev.EventBody.FromString(draft.payload) == CREATED


def test_a_body_with_nothing_in_it_is_no_event() -> None:
    with pytest.raises(ValueError, match="nothing in it"):
        EventDraft.of(ev.EventBody())


def test_a_stored_event_is_what_was_said_with_its_place_time_and_hash() -> None:
    stored = StoredEvent("R", 7, "A", 3, 1, 1_700_000_000_123, CREATED.SerializeToString(), b"", b"", b"\x0f" * 32)
    event = event_of(stored)
    assert (event.run_id, event.seq, event.epoch, event.hash) == ("R", 7, 3, "b3:" + "0f" * 32)
    assert event.time.ToMilliseconds() == 1_700_000_000_123
    assert (event.body, event.erased) == (CREATED, False)


def test_an_erased_event_says_so_and_nothing_else() -> None:
    event = event_of(StoredEvent("R", 7, "A", 3, 1, 0, None, b"", b"", b""))
    assert event.erased
    assert event.body == ev.EventBody()


async def created(world: World) -> RunHead:
    new = replace(world.new_run(), fold_version=FOLD_VERSION, events=(EventDraft.of(CREATED),))
    return await world.journal.create_run(new)


async def test_a_run_is_folded_to_its_head_and_shown_by_what_it_folds_to(world: World) -> None:
    head = await created(world)
    folded = await folded_run(world.journal, head.run_id, tenant=head.tenant)
    assert folded.head == head
    assert (folded.folded.state.seq, folded.folded.state.spec.goal) == (1, "enter them")
    shown = projection(folded.folded)
    assert (shown.state, shown.terminal) == (ev.RunPhase.Name(folded.folded.state.phase), False)
    assert RunSummary.FromString(shown.body).run_id == head.run_id


async def test_a_fold_goes_on_from_the_snapshot_of_its_own_fold_alone(world: World) -> None:
    head = await created(world)
    kept = st.RunState(run_id=head.run_id, seq=1, spec=MissionSpec(goal="as it was kept"), fold_version=FOLD_VERSION)
    for version, goal in ((FOLD_VERSION - 1, "enter them"), (FOLD_VERSION, "as it was kept")):
        snapshot = Snapshot(head.run_id, 1, version, kept.SerializeToString())
        await world.journal.save_snapshot(snapshot)
        assert (await folded_run(world.journal, head.run_id)).folded.state.spec.goal == goal


async def test_a_run_that_a_newer_node_writes_is_not_folded_and_the_refusal_says_who_can(world: World) -> None:
    head = await created(world)
    await world.journal.claim(world.node, fold_version=FOLD_VERSION + 1, limit=1)
    with pytest.raises(FoldTooNew, match=f"run {head.run_id} needs a newer node") as refused:
        await folded_run(world.journal, head.run_id)
    assert refused.value.metadata["fold_version"] == str(FOLD_VERSION + 1)


def test_a_snapshot_is_due_at_the_end_and_less_and_less_often_before_it() -> None:
    assert due(1, 0, ended=True)
    assert [due(seq, 0, ended=False) for seq in (FIRST_AFTER - 1, FIRST_AFTER)] == [False, True]
    assert [due(10_000 + more, 10_000, ended=False) for more in (FIRST_AFTER, 2499, 2500)] == [False, False, True]


async def test_a_run_whose_tail_is_missing_is_not_folded(world: World) -> None:
    head = await created(world)
    await world.db.transact(lambda connection: connection.exec_driver_sql("UPDATE runs SET head_seq = 3").rowcount)
    with pytest.raises(DataLoss) as refused:
        await folded_run(world.journal, head.run_id)
    assert (refused.value.reason, refused.value.metadata["run_id"]) == ("JOURNAL_GAP", head.run_id)
