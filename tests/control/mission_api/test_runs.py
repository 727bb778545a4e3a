from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from control.core.run import fold
from control.core.summary import state_digest
from control.journal import shared_journal
from infra.errors import AlreadyExists, InvalidArgument, NotFound, OutOfRange, Precondition, SkyError
from infra.status import from_rpc_error
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import run_service_pb2 as pb
from tests.control.mission_api.world import Client, World

if TYPE_CHECKING:
    from skyagent.run.v1.run_service_pb2_grpc import RunServiceAsyncStub


class Call(Protocol):
    """A call about one run."""

    def __call__(self, runs: RunServiceAsyncStub, run_id: str, /) -> Awaitable[object]: ...


REQUEST_ID = "6f1f2c34-5a6b-4c7d-8e9f-0a1b2c3d4e5f"


async def _error(call: Awaitable[object]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_run_is_the_fold_of_its_events(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.finish(await world.owned(run_id))
    answer = await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))
    listed = await world.client.runs.ListEvents(pb.ListEventsRequest(run_id=run_id))
    assert answer.run == fold(listed.events)
    assert answer.state_digest == state_digest(answer.run)
    assert (answer.head_hash, answer.run.seq) == (listed.events[-1].hash, listed.head_seq)


async def test_events_come_in_pages(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.finish(await world.owned(run_id))
    page = await world.client.runs.ListEvents(pb.ListEventsRequest(run_id=run_id, after_seq=1, page_size=1))
    assert ([event.seq for event in page.events], page.head_seq) == ([2], 3)
    beyond = await world.client.runs.ListEvents(pb.ListEventsRequest(run_id=run_id, after_seq=9))
    assert (list(beyond.events), beyond.head_seq) == ([], 3)


async def test_what_is_too_large_for_one_message_comes_in_pages_and_a_large_state_all_the_same(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    for number in range(6):
        node = plan.PlanNode(node_id=f"N{number}", title="x" * 2**20)
        await ledger.commit([ev.EventBody(plan_extended=ev.PlanExtended(nodes=[node]))])
    seen: list[ev.RunEvent] = []
    sizes: list[int] = []
    while not sizes or seen[-1].seq < ledger.state.seq:
        after = seen[-1].seq if seen else 0
        page = await world.client.runs.ListEvents(pb.ListEventsRequest(run_id=run_id, after_seq=after))
        sizes.append(page.ByteSize())
        seen += page.events
    assert max(sizes) < 4 * 2**20
    answer = await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))
    assert answer.run == fold(seen)


async def test_runs_are_listed_newest_first_by_mission_and_phase(world: World) -> None:
    first, second = await world.create(), await world.create()
    ledger = await world.owned(first.run_id)
    await world.finish(ledger)
    everything = (await world.client.runs.ListRuns(pb.ListRunsRequest())).runs
    assert [run.run_id for run in everything] == [second.run_id, first.run_id]
    ended = await world.client.runs.ListRuns(pb.ListRunsRequest(phases=[ev.RUN_PHASE_SUCCEEDED]))
    assert [(run.run_id, run.summary) for run in ended.runs] == [(first.run_id, "done")]
    of_mission = await world.client.runs.ListRuns(pb.ListRunsRequest(mission_id=second.mission.mission_id))
    assert [run.run_id for run in of_mission.runs] == [second.run_id]


async def test_lists_are_the_same_after_everything_derived_was_dropped(world: World) -> None:
    created = [await world.create() for _ in range(2)]
    await world.finish(await world.owned(created[0].run_id))
    before = await world.client.runs.ListRuns(pb.ListRunsRequest())
    journal = await world.runtime.shared(shared_journal)
    await journal.drop_projections()
    assert await world.client.runs.ListRuns(pb.ListRunsRequest()) == before
    ended = await world.client.runs.ListRuns(pb.ListRunsRequest(phases=[ev.RUN_PHASE_SUCCEEDED]))
    assert len(ended.runs) == 1


async def test_a_pause_is_durable_when_it_is_answered(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    pause = pb.PauseRunRequest(run_id=run_id, request_id=REQUEST_ID, reason="lunch")
    assert (await world.client.runs.PauseRun(pause)).run.phase == ev.RUN_PHASE_PAUSING
    commands = await ledger.journal.pending_commands(run_id)
    assert [(command.cmd_id, command.kind, command.actor) for command in commands] == [
        (REQUEST_ID, "PAUSE", "admin-of-default")
    ]
    await world.client.runs.PauseRun(pause)
    assert len(await ledger.journal.pending_commands(run_id)) == 1
    await world.apply_commands(ledger)
    assert (await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.phase == ev.RUN_PHASE_PAUSED
    await world.client.runs.ResumeRun(pb.ResumeRunRequest(run_id=run_id))
    await world.apply_commands(ledger)
    assert (await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.phase == ev.RUN_PHASE_RUNNING


async def test_a_request_id_cannot_stand_for_another_command(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.client.runs.PauseRun(pb.PauseRunRequest(run_id=run_id, request_id=REQUEST_ID))
    other = world.client.runs.ResumeRun(pb.ResumeRunRequest(run_id=run_id, request_id=REQUEST_ID))
    assert isinstance(await _error(other), AlreadyExists)


async def test_a_cancellation_says_how_long_open_steps_may_take(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    request = pb.CancelRunRequest(run_id=run_id, reason="enough")
    request.grace.seconds = 2
    assert (await world.client.runs.CancelRun(request)).run.phase == ev.RUN_PHASE_CANCELLING
    await world.apply_commands(ledger)
    state = (await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
    assert (state.cancel_wanted, state.cancel_reason) == (True, "enough")
    applied = (await world.client.runs.ListEvents(pb.ListEventsRequest(run_id=run_id))).events[-1].body.command_applied
    assert applied.command.cancel.grace.seconds == 2


async def test_a_run_that_has_ended_takes_no_commands(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.finish(await world.owned(run_id))
    assert isinstance(await _error(world.client.runs.PauseRun(pb.PauseRunRequest(run_id=run_id))), Precondition)


async def test_steering_needs_something_to_say(world: World) -> None:
    run_id = (await world.create()).run_id
    silent = world.client.runs.SteerRun(pb.SteerRunRequest(run_id=run_id, message=" "))
    assert isinstance(await _error(silent), InvalidArgument)
    await world.client.runs.SteerRun(pb.SteerRunRequest(run_id=run_id, message="use the second form"))
    ledger = await world.owned(run_id)
    await world.apply_commands(ledger)
    assert list(ledger.state.steering) == ["use the second form"]


async def test_the_place_and_the_end_of_a_run_are_changed_one_at_a_time(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    later = world.runtime.clock.now_ms() + 60_000
    urgent, due = pb.AdjustRunRequest(run_id=run_id, priority=7), pb.AdjustRunRequest(run_id=run_id)
    due.deadline.FromMilliseconds(later)
    for request in (urgent, due):
        await world.client.runs.AdjustRun(request)
    await world.apply_commands(ledger)
    assert (ledger.state.priority, ledger.state.deadline.ToMilliseconds()) == (7, later)


@pytest.mark.parametrize(
    ("field", "change"),
    [("change", {}), ("priority", {"priority": 1001}), ("deadline", {"deadline": Timestamp(seconds=1)})],
)
async def test_a_change_that_changes_nothing_or_is_out_of_bounds_is_refused(
    world: World, field: str, change: dict[str, Any]
) -> None:
    run_id = (await world.create()).run_id
    refused = await _error(world.client.runs.AdjustRun(pb.AdjustRunRequest(run_id=run_id, **change)))
    assert isinstance(refused, InvalidArgument)
    assert refused.violations[0].field == field


async def test_only_an_uncertain_step_is_settled_by_a_person(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    step_id = world.runtime.ids.ulid()
    node = plan.PlanNode(node_id=step_id, title="Save", step=plan.Step())
    await ledger.commit([ev.EventBody(plan_extended=ev.PlanExtended(nodes=[node]))])
    request = pb.ResolveStepRequest(run_id=run_id, step_id=step_id, effect=eff.EFFECT_DONE)
    assert (await _error(world.client.runs.ResolveStep(request))).reason == "STEP_NOT_UNCERTAIN"
    unknown = pb.ResolveStepRequest(run_id=run_id, step_id=world.runtime.ids.ulid(), effect=eff.EFFECT_DONE)
    assert (await _error(world.client.runs.ResolveStep(unknown))).reason == "STEP_NOT_FOUND"
    await ledger.commit(
        [
            ev.EventBody(step_intended=ev.StepIntended(step_id=step_id, attempt=1)),
            ev.EventBody(step_uncertain=ev.StepUncertain(step_id=step_id, attempt=1, known="the worker died")),
        ]
    )
    await world.client.runs.ResolveStep(request)
    assert [command.kind for command in await ledger.journal.pending_commands(run_id)] == ["RESOLVE"]


async def test_a_journal_is_verified(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.finish(await world.owned(run_id))
    verified = await world.client.runs.VerifyRun(pb.VerifyRunRequest(run_id=run_id))
    head_hash = (await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).head_hash
    assert (verified.intact, verified.events, verified.head_hash) == (True, 3, head_hash)


CALLS: list[Call] = [
    lambda runs, run_id: runs.GetRun(pb.GetRunRequest(run_id=run_id)),
    lambda runs, run_id: runs.ListEvents(pb.ListEventsRequest(run_id=run_id)),
    lambda runs, run_id: runs.PauseRun(pb.PauseRunRequest(run_id=run_id)),
    lambda runs, run_id: runs.ResumeRun(pb.ResumeRunRequest(run_id=run_id)),
    lambda runs, run_id: runs.CancelRun(pb.CancelRunRequest(run_id=run_id)),
    lambda runs, run_id: runs.SteerRun(pb.SteerRunRequest(run_id=run_id, message="x")),
    lambda runs, run_id: runs.AdjustRun(pb.AdjustRunRequest(run_id=run_id, priority=1)),
    lambda runs, run_id: runs.ResolveStep(pb.ResolveStepRequest(run_id=run_id, step_id=run_id, effect=eff.EFFECT_DONE)),
    lambda runs, run_id: runs.ForkRun(pb.ForkRunRequest(run_id=run_id, seq=1)),
    lambda runs, run_id: runs.ReplayRun(pb.ReplayRunRequest(run_id=run_id)),
    lambda runs, run_id: runs.DiffRuns(pb.DiffRunsRequest(run_id=run_id, other_run_id=run_id)),
    lambda runs, run_id: runs.VerifyRun(pb.VerifyRunRequest(run_id=run_id)),
]


@pytest.mark.parametrize("call", CALLS)
async def test_another_tenants_run_looks_as_if_it_were_not_there(
    world: World,
    stranger: Client,
    call: Call,
) -> None:
    run_id = (await world.create()).run_id
    told = await _error(call(stranger.runs, run_id))
    assert isinstance(told, NotFound)
    absent = world.runtime.ids.ulid()
    assert (await _error(call(stranger.runs, absent))).message.replace(absent, "") == told.message.replace(run_id, "")


@pytest.mark.parametrize("call", CALLS)
async def test_an_id_that_is_none_is_refused_by_field(world: World, call: Call) -> None:
    told = await _error(call(world.client.runs, "1; DROP TABLE runs"))
    assert isinstance(told, InvalidArgument)
    assert "run_id" in {violation.field for violation in told.violations}


async def test_a_watcher_cannot_begin_beyond_the_end(world: World) -> None:
    run_id = (await world.create()).run_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await anext(aiter(world.client.runs.WatchRun(pb.WatchRunRequest(run_id=run_id, after_seq=7))))
    assert isinstance(from_rpc_error(caught.value), OutOfRange)
