"""Forks as people ask for them: what is refused and which field it names, and what is there afterwards."""

from __future__ import annotations

from collections.abc import Awaitable

import grpc
import pytest

from control.journal import shared_journal
from infra.errors import AlreadyExists, InvalidArgument, NotFound, SkyError
from infra.status import from_rpc_error
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.mission.v1 import mission_service_pb2 as missions
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import run_service_pb2 as pb
from tests.control.meshed import CallingAs
from tests.control.mission_api.world import World, client_of

REQUEST_ID = "6f9619ff-8b86-4011-b42d-00c04fc964ff"


async def refused(call: Awaitable[object]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def fields(call: Awaitable[object]) -> tuple[str, list[str]]:
    error = await refused(call)
    assert isinstance(error, InvalidArgument)
    return error.reason, [violation.field for violation in error.violations]


def posting() -> plan.PlanNode:
    step = plan.Step()
    step.action.effect_class = eff.EFFECT_CLASS_ONCE
    return plan.PlanNode(node_id="01M8H8VFM9A00G70NX6K26VGTV", title="post", step=step)


async def test_an_event_that_is_not_there_is_refused_by_its_field(world: World) -> None:
    run_id = (await world.create()).run_id
    asked = pb.ForkRunRequest(run_id=run_id, seq=2)
    assert await fields(world.client.runs.ForkRun(asked)) == ("SEQ_BEYOND_END", ["seq"])
    assert (await fields(world.client.runs.ForkRun(pb.ForkRunRequest(run_id=run_id))))[1] == ["seq"]


async def test_what_was_erased_cannot_be_forked(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    await world.finish(ledger)
    await world.client.runs.EraseRun(pb.EraseRunRequest(run_id=run_id, seqs=[2], reason="asked for"))
    asked = pb.ForkRunRequest(run_id=run_id, seq=2)
    assert await fields(world.client.runs.ForkRun(asked)) == ("EVENTS_ERASED", ["seq"])
    assert (await world.client.runs.ForkRun(pb.ForkRunRequest(run_id=run_id, seq=1))).run.run_id


async def test_where_an_erased_intent_hides_what_was_begun_no_fork_is_made(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    intended = ev.StepIntended(step_id=posting().node_id, attempt=1, effect_class=eff.EFFECT_CLASS_ONCE)
    events = [ev.PlanExtended(nodes=[posting()])]
    await ledger.commit([ev.EventBody(plan_extended=events[0]), ev.EventBody(step_intended=intended)])
    await world.finish(ledger)
    await world.client.runs.EraseRun(pb.EraseRunRequest(run_id=run_id, seqs=[4], reason="asked for"))
    asked = pb.ForkRunRequest(run_id=run_id, seq=3)
    assert await fields(world.client.runs.ForkRun(asked)) == ("EVENTS_ERASED", ["seq"])


async def test_effects_under_a_later_plan_are_repeated_only_when_that_is_said(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    intended = ev.StepIntended(step_id=posting().node_id, attempt=1, effect_class=eff.EFFECT_CLASS_ONCE)
    extended = ev.PlanExtended(nodes=[posting()])
    await ledger.commit([ev.EventBody(plan_extended=extended), ev.EventBody(step_intended=intended)])
    asked = pb.ForkRunRequest(run_id=run_id, seq=2)
    assert await fields(world.client.runs.ForkRun(asked)) == ("EFFECTS_NOT_SHARED", ["seq"])
    asked.repeat_effects = True
    assert (await world.client.runs.ForkRun(asked)).run.parent_run_id == run_id
    assert (await world.client.runs.ForkRun(pb.ForkRunRequest(run_id=run_id, seq=3))).notes


async def test_inputs_that_come_too_late_are_named_and_others_are_heeded(world: World) -> None:
    run_id = (await world.create()).run_id
    other = mission.Input(name="username", value="bob")
    asked = pb.ForkRunRequest(run_id=run_id, seq=1, inputs=[other], goal="as bob")
    child = (await world.client.runs.ForkRun(asked)).run
    state = (await world.client.runs.GetRun(pb.GetRunRequest(run_id=child.run_id))).run
    assert (child.goal, {given.name: given.value for given in state.spec.inputs}["username"]) == ("as bob", "bob")
    ledger = await world.owned(run_id)
    planned = plan.PlanNode(node_id="01M8H8VFM9A00G70NX6K26VGTV", group=plan.Group(phase="sign_in"))
    await ledger.commit([ev.EventBody(plan_extended=ev.PlanExtended(nodes=[planned], more=True))])
    asked.seq = 4 if (await ledger.journal.head(run_id)).head_seq == 4 else 3
    assert await fields(world.client.runs.ForkRun(asked)) == ("INPUTS_TOO_LATE", ["inputs.username"])


async def test_an_input_that_the_template_does_not_take_is_refused_by_its_field(world: World) -> None:
    run_id = (await world.create()).run_id
    asked = pb.ForkRunRequest(run_id=run_id, seq=1, inputs=[mission.Input(name="colour", value="red")])
    assert (await fields(world.client.runs.ForkRun(asked)))[1] == ["inputs.colour"]


async def test_the_same_request_is_the_same_fork_and_for_another_event_it_is_refused(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.owned(run_id)
    asked = pb.ForkRunRequest(run_id=run_id, seq=1, request_id=REQUEST_ID)
    first, again = await world.client.runs.ForkRun(asked), await world.client.runs.ForkRun(asked)
    assert first.run.run_id == again.run.run_id
    assert first.parent == again.parent
    asked.seq = 2
    assert isinstance(await refused(world.client.runs.ForkRun(asked)), AlreadyExists)


async def test_a_fork_is_a_run_of_its_mission_and_verifies(world: World) -> None:
    created = await world.create()
    child = (await world.client.runs.ForkRun(pb.ForkRunRequest(run_id=created.run_id, seq=1))).run.run_id
    asked = missions.GetMissionRequest(mission_id=created.mission.mission_id)
    found = (await world.client.missions.GetMission(asked)).mission
    assert (found.run_count, found.current_run_id) == (2, child)
    state = (await world.client.runs.GetRun(pb.GetRunRequest(run_id=child))).run
    assert (state.ordinal, state.parent.run_id, state.phase) == (2, created.run_id, ev.RUN_PHASE_QUEUED)
    assert (await world.client.runs.VerifyRun(pb.VerifyRunRequest(run_id=child))).intact
    journal = await world.runtime.shared(shared_journal)
    assert [command.kind for command in await journal.pending_commands(created.run_id)] == ["FORK"]


async def test_a_run_that_has_ended_is_forked_and_told_nothing(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    await world.finish(ledger)
    child = (await world.client.runs.ForkRun(pb.ForkRunRequest(run_id=run_id, seq=3))).run
    assert child.phase == ev.RUN_PHASE_QUEUED
    assert await ledger.journal.pending_commands(run_id) == ()
    state = (await world.client.runs.GetRun(pb.GetRunRequest(run_id=child.run_id))).run
    assert state.planning_open


async def test_another_tenants_run_is_neither_forked_nor_replayed_nor_compared(
    world: World, calling_as: CallingAs
) -> None:
    run_id = (await world.create()).run_id
    stranger = client_of(calling_as, world.runtime, tenant="stranger").runs
    for call in (
        stranger.ForkRun(pb.ForkRunRequest(run_id=run_id, seq=1)),
        stranger.ReplayRun(pb.ReplayRunRequest(run_id=run_id)),
        stranger.DiffRuns(pb.DiffRunsRequest(run_id=run_id, other_run_id=run_id)),
    ):
        assert isinstance(await refused(call), NotFound)


async def test_a_fork_and_its_parent_share_what_was_before_and_a_run_is_the_same_as_itself(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    extended = ev.PlanExtended(nodes=[posting()], planner="a test")
    await ledger.commit([ev.EventBody(plan_extended=extended)])
    child = (await world.client.runs.ForkRun(pb.ForkRunRequest(run_id=run_id, seq=3))).run.run_id
    await world.finish(ledger)
    same = await world.client.runs.DiffRuns(pb.DiffRunsRequest(run_id=run_id, other_run_id=run_id))
    assert (same.HasField("first"), same.common, list(same.steps)) == (False, 2, [])
    parted = await world.client.runs.DiffRuns(pb.DiffRunsRequest(run_id=run_id, other_run_id=child))
    assert (parted.common, parted.first.text, parted.first.seq) == (1, "ended as SUCCEEDED", 4)
    assert not parted.HasField("other_first")
