from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from control.budgets import Ask, Granted, shared_escrow
from control.core.meters import STEPS, TOKENS, meter
from control.journal import shared_journal
from control.orchestrator.drawing import Returns
from infra.auth import Role
from infra.errors import AlreadyExists, Denied, Exhausted, InvalidArgument, NotFound, Precondition, SkyError
from infra.status import from_rpc_error
from skyagent.budget.v1 import budget_service_pb2 as pb
from skyagent.mission.v1.mission_pb2 import Limits
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as runs
from tests.control.meshed import CallingAs
from tests.control.mission_api.world import Client, World, client_of

REQUEST_ID = "6f1f2c34-5a6b-4c7d-8e9f-0a1b2c3d4e5f"


async def error(call: Awaitable[object]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def budget(world: World, mission_id: str = "", kind: str = STEPS) -> pb.Budget:
    asked = pb.GetBudgetRequest(kind=kind, mission_id=mission_id)
    return (await world.client.budgets.GetBudget(asked)).budget


async def held(world: World, run_id: str, mission_id: str, units: int) -> None:
    """A run that was granted so much of its mission's budget, as its owner would have it."""
    escrow = await world.runtime.shared(shared_escrow)
    drawn = {"from_mission": True, "from_tenant": False}
    granted = await escrow.ask(
        Ask(f"{run_id}:steps:1", run_id, "default", mission_id, STEPS, need=units, want=units, **drawn)
    )
    assert isinstance(granted, Granted)
    assert granted.amount == units


async def test_limits_of_a_mission_that_are_stated_are_its_budgets_and_its_runs_draw_from_them(world: World) -> None:
    limits = Limits(max_steps=50, max_tokens=1_000)
    limits.max_wall_time.FromSeconds(600)
    created = await world.create(limits)
    mission_id = created.mission.mission_id
    listed = (await world.client.budgets.ListBudgets(pb.ListBudgetsRequest(mission_id=mission_id))).budgets
    assert [(each.kind, each.limit) for each in listed] == [("steps", 50), ("tokens", 1_000), ("wall_time", 600_000)]
    state = (await world.client.runs.GetRun(runs.GetRunRequest(run_id=created.run_id))).run
    drawn = [(each.kind, each.from_mission, each.from_tenant) for each in state.meters]
    assert drawn == [("steps", True, False), ("tokens", True, False), ("wall_time", True, False)]


async def test_a_mission_that_is_held_has_its_budgets_from_the_beginning(world: World) -> None:
    created = await world.create(Limits(max_steps=7), hold=True)
    assert (await budget(world, created.mission.mission_id)).limit == 7


async def test_without_limits_and_budgets_a_run_is_created_as_ever(world: World) -> None:
    created = await world.create()
    events = (await world.client.runs.ListEvents(runs.ListEventsRequest(run_id=created.run_id))).events
    assert [event.body.WhichOneof("kind") for event in events] == ["run_created"]
    assert not (await world.client.budgets.ListBudgets(pb.ListBudgetsRequest())).budgets


async def test_a_budget_of_the_tenant_binds_the_runs_that_start_afterwards(world: World) -> None:
    before = (await world.create()).run_id
    await world.client.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, limit=90))
    after = (await world.create()).run_id
    bound = [
        meter((await world.client.runs.GetRun(runs.GetRunRequest(run_id=run_id))).run, STEPS)
        for run_id in (before, after)
    ]
    assert bound[0] is None
    assert bound[1] is not None
    assert (bound[1].from_tenant, bound[1].from_mission) == (True, False)


async def test_budgets_are_listed_the_tenants_first_in_pages(world: World) -> None:
    missions = [(await world.create(Limits(max_steps=5, max_tokens=6))).mission.mission_id for _ in range(3)]
    for kind in (STEPS, TOKENS):
        await world.client.budgets.SetBudget(pb.SetBudgetRequest(kind=kind, limit=90))
    found, token = list[tuple[str, str]](), ""
    while True:
        page = await world.client.budgets.ListBudgets(pb.ListBudgetsRequest(page_size=3, page_token=token))
        found += [(each.mission_id, each.kind) for each in page.budgets]
        token = page.next_page_token
        if not token:
            break
    assert found == [(owner, kind) for owner in ("", *reversed(missions)) for kind in (STEPS, TOKENS)]


async def test_a_budget_shows_what_each_run_was_granted_and_used(world: World) -> None:
    created = await world.create(Limits(max_steps=50))
    mission_id, run_id = created.mission.mission_id, created.run_id
    await held(world, run_id, mission_id, 20)
    shown = await budget(world, mission_id)
    assert (shown.limit, shown.allotted, shown.spent, shown.returned) == (50, 20, 0, 0)
    (allotment,) = shown.allotments
    assert (allotment.run_id, allotment.granted, allotment.settled) == (run_id, 20, False)
    await (await world.runtime.shared(shared_escrow)).settle(run_id, {STEPS: 12})
    shown = await budget(world, mission_id)
    assert (shown.allotted, shown.spent, shown.returned, shown.allotments[0].returned) == (0, 12, 8, 8)


async def test_a_limit_below_what_runs_hold_or_used_is_refused_and_the_same_limit_changes_nothing(world: World) -> None:
    created = await world.create(Limits(max_steps=50))
    mission_id = created.mission.mission_id
    await held(world, created.run_id, mission_id, 20)
    low = await error(world.client.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, mission_id=mission_id, limit=19)))
    assert isinstance(low, Precondition)
    assert (low.reason, low.metadata["in_use"]) == ("BUDGET_IN_USE", "20")
    for _ in range(2):
        await world.client.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, mission_id=mission_id, limit=20))
    assert (await budget(world, mission_id)).limit == 20


async def test_a_top_up_of_a_run_is_granted_once_however_often_and_whenever_it_is_asked_for(world: World) -> None:
    created = await world.create(Limits(max_steps=5))
    run_id, mission_id = created.run_id, created.mission.mission_id
    more = pb.TopUpRunRequest(run_id=run_id, kind=STEPS, amount=30, request_id=REQUEST_ID)
    await asyncio.gather(*(world.client.budgets.TopUpRun(more) for _ in range(5)))
    await world.client.budgets.TopUpRun(more)
    shown = await budget(world, mission_id)
    assert (shown.limit, shown.allotted) == (35, 30)
    ledger = await world.owned(run_id)
    await world.apply_commands(ledger)
    found = meter(ledger.state, STEPS)
    assert found is not None
    assert (found.allotted, found.topped_up) == (30, 30)
    await world.client.budgets.TopUpRun(more)
    assert await ledger.journal.pending_commands(run_id) == ()
    more.amount = 31
    assert isinstance(await error(world.client.budgets.TopUpRun(more)), AlreadyExists)


async def test_a_top_up_needs_room_in_the_tenants_budget(world: World) -> None:
    await world.client.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, limit=10))
    run_id = (await world.create()).run_id
    asked = pb.TopUpRunRequest(run_id=run_id, kind=STEPS, amount=11)
    refused = await error(world.client.budgets.TopUpRun(asked))
    assert isinstance(refused, Exhausted)
    assert refused.reason == "TENANT_BUDGET_EXHAUSTED"
    assert "has 10 left, 11 are asked for" in refused.message
    assert (await budget(world)).allotted == 0


async def test_a_run_that_nothing_limits_needs_no_more(world: World) -> None:
    run_id = (await world.create()).run_id
    asked = pb.TopUpRunRequest(run_id=run_id, kind=TOKENS, amount=1)
    assert (await error(world.client.budgets.TopUpRun(asked))).reason == "NOT_LIMITED"


async def test_a_run_that_is_bounded_by_itself_is_topped_up_without_any_budget(world: World) -> None:
    run_id = (await world.create()).run_id
    await world.client.budgets.TopUpRun(pb.TopUpRunRequest(run_id=run_id, kind=STEPS, amount=9))
    ledger = await world.owned(run_id)
    await world.apply_commands(ledger)
    found = meter(ledger.state, STEPS)
    assert found is not None
    assert (found.topped_up, found.allotted) == (9, 0)
    assert not (await world.client.budgets.ListBudgets(pb.ListBudgetsRequest())).budgets


async def test_a_run_that_has_ended_is_not_topped_up(world: World) -> None:
    created = await world.create(Limits(max_steps=5))
    await world.finish(await world.owned(created.run_id))
    asked = pb.TopUpRunRequest(run_id=created.run_id, kind=STEPS, amount=9)
    assert (await error(world.client.budgets.TopUpRun(asked))).reason == "RUN_ENDED"
    assert (await budget(world, created.mission.mission_id)).limit == 5


async def test_a_mission_is_topped_up_once_for_each_request(world: World) -> None:
    mission_id = (await world.create(Limits(max_steps=5))).mission.mission_id
    more = pb.TopUpMissionRequest(mission_id=mission_id, kind=STEPS, amount=10, request_id=REQUEST_ID)
    await asyncio.gather(*(world.client.budgets.TopUpMission(more) for _ in range(5)))
    assert (await budget(world, mission_id)).limit == 15
    more.amount = 11
    assert isinstance(await error(world.client.budgets.TopUpMission(more)), AlreadyExists)
    none = pb.TopUpMissionRequest(mission_id=mission_id, kind=TOKENS, amount=10)
    assert (await error(world.client.budgets.TopUpMission(none))).reason == "BUDGET_NOT_FOUND"


async def test_operators_top_up_and_only_administrators_set(world: World, calling_as: CallingAs) -> None:
    mission_id = (await world.create(Limits(max_steps=5))).mission.mission_id
    operator = client_of(calling_as, world.runtime, role=Role.OPERATOR)
    refused = await error(operator.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, limit=5)))
    assert isinstance(refused, Denied)
    more = pb.TopUpMissionRequest(mission_id=mission_id, kind=STEPS, amount=1)
    assert (await operator.budgets.TopUpMission(more)).budget.limit == 6
    viewer = client_of(calling_as, world.runtime, role=Role.VIEWER)
    assert isinstance(await error(viewer.budgets.TopUpMission(more)), Denied)
    assert len((await viewer.budgets.ListBudgets(pb.ListBudgetsRequest())).budgets) == 1


async def test_another_tenants_budgets_look_as_if_they_were_not_there(world: World, stranger: Client) -> None:
    created = await world.create(Limits(max_steps=5))
    run_id, mission_id = created.run_id, created.mission.mission_id
    await world.client.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, limit=50))
    assert not (await stranger.budgets.ListBudgets(pb.ListBudgetsRequest())).budgets
    assert not (await stranger.budgets.ListBudgets(pb.ListBudgetsRequest(mission_id=mission_id))).budgets
    calls = [
        stranger.budgets.GetBudget(pb.GetBudgetRequest(kind=STEPS)),
        stranger.budgets.GetBudget(pb.GetBudgetRequest(kind=STEPS, mission_id=mission_id)),
        stranger.budgets.SetBudget(pb.SetBudgetRequest(kind=STEPS, mission_id=mission_id, limit=1)),
        stranger.budgets.TopUpMission(pb.TopUpMissionRequest(mission_id=mission_id, kind=STEPS, amount=1)),
        stranger.budgets.TopUpRun(pb.TopUpRunRequest(run_id=run_id, kind=STEPS, amount=1)),
    ]
    assert {type(await error(call)) for call in calls} == {NotFound}


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("kind", pb.SetBudgetRequest(kind="gold", limit=1)),
        ("mission_id", pb.SetBudgetRequest(kind=STEPS, mission_id="mine", limit=1)),
        ("limit", pb.SetBudgetRequest(kind=STEPS, limit=10**18 + 1)),
    ],
)
async def test_what_is_no_budget_is_refused_by_field(world: World, field: str, asked: pb.SetBudgetRequest) -> None:
    refused = await error(world.client.budgets.SetBudget(asked))
    assert isinstance(refused, InvalidArgument)
    assert [violation.field for violation in refused.violations] == [field]


async def test_a_list_shows_that_a_run_is_out_of_budget_and_why(world: World) -> None:
    created = await world.create(Limits(max_steps=5))
    ledger = await world.owned(created.run_id)
    blocked = ev.RunBlocked(reason="BUDGET_EXHAUSTED", detail="the mission's budget of steps is used up")
    await ledger.commit([ev.EventBody(run_blocked=blocked)])
    (run,) = (await world.client.runs.ListRuns(runs.ListRunsRequest())).runs
    assert (run.phase, run.blocked_reason) == (ev.RUN_PHASE_WAITING, "BUDGET_EXHAUSTED")
    assert run.blocked_detail == blocked.detail
    assert [each.kind for each in run.meters] == [STEPS]


async def test_a_run_that_cannot_be_read_any_more_keeps_no_other_from_giving_back(world: World) -> None:
    runs_of = [await world.create(Limits(max_steps=50)) for _ in range(2)]
    for each in runs_of:
        await held(world, each.run_id, each.mission.mission_id, 5)
        await world.finish(await world.owned(each.run_id))
    escrow, journal = await world.runtime.shared(shared_escrow), await world.runtime.shared(shared_journal)
    gone = min(each.run_id for each in runs_of)
    await world.client.runs.EraseRun(runs.EraseRunRequest(run_id=gone, all=True, reason="asked by the person"))
    assert len(await escrow.unsettled()) == 2
    await Returns(journal, escrow, world.runtime.clock).look()
    assert not await escrow.unsettled()


async def test_a_limit_that_no_store_can_hold_is_refused_by_its_field(world: World) -> None:
    refused = await error(world.create(Limits(max_tokens=2**64 - 1)))
    assert "max_tokens" in refused.message
