"""BudgetService."""

from __future__ import annotations

import grpc

from control.budgets import Ask, Budget, BudgetKey, Escrow, Held, TopUp
from control.core.budget import own_limit
from control.core.meters import draws, meter
from control.core.run import terminal
from control.journal import Journal
from control.journal.folding import folded_run
from control.mission_api.missions import Missions
from control.mission_api.runs import Runs
from infra.auth import caller
from infra.errors import Precondition
from infra.ids import Ids
from skyagent.budget.v1 import budget_service_pb2 as pb
from skyagent.budget.v1 import budget_service_pb2_grpc as rpc
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import state_pb2 as st

Context = grpc.aio.ServicerContext[object, object]

_PAGE = 50


class BudgetServicer(rpc.BudgetServiceServicer):
    """Translates; escrow and the run's own journal decide."""

    def __init__(self, escrow: Escrow, journal: Journal, runs: Runs, missions: Missions, ids: Ids) -> None:
        self._escrow = escrow
        self._journal = journal
        self._runs = runs
        self._missions = missions
        self._ids = ids

    async def SetBudget(self, request: pb.SetBudgetRequest, context: Context) -> pb.SetBudgetResponse:
        key = await self._key(request.kind, request.mission_id)
        budget = await self._escrow.set_limit(key, request.limit, caller().subject)
        return pb.SetBudgetResponse(budget=_shown(budget))

    async def GetBudget(self, request: pb.GetBudgetRequest, context: Context) -> pb.GetBudgetResponse:
        key = await self._key(request.kind, request.mission_id)
        budget = _shown(await self._escrow.find(key))
        budget.allotments.extend([await self._allotment(held) for held in await self._escrow.held(key)])
        return pb.GetBudgetResponse(budget=budget)

    async def ListBudgets(self, request: pb.ListBudgetsRequest, context: Context) -> pb.ListBudgetsResponse:
        page = await self._escrow.page(
            caller().tenant,
            mission_id=request.mission_id,
            page_size=request.page_size or _PAGE,
            page_token=request.page_token,
        )
        return pb.ListBudgetsResponse(
            budgets=[_shown(budget) for budget in page.budgets], next_page_token=page.next_page_token
        )

    async def TopUpRun(self, request: pb.TopUpRunRequest, context: Context) -> pb.TopUpRunResponse:
        """First the grant, then the command that tells the run: it hears of the grant by itself if the second fails."""
        who, request_id = caller(), request.request_id or self._ids.uuid()
        state = (await folded_run(self._journal, request.run_id, tenant=who.tenant)).folded.state
        _require_limited(state, request.kind)
        asked = _asked(state, request, f"{state.run_id}:{request_id}")
        if asked.keys and not terminal(state.phase):
            await self._escrow.top_up(TopUp(asked, who.subject))
        budget = cmd.BudgetCommand(grant_id=asked.grant_id, kind=request.kind, amount=request.amount)
        told = await self._runs.command(state.run_id, cmd.Command(budget=budget), who, request_id)
        return pb.TopUpRunResponse(run=told)

    async def TopUpMission(self, request: pb.TopUpMissionRequest, context: Context) -> pb.TopUpMissionResponse:
        key = await self._key(request.kind, request.mission_id)
        request_id = request.request_id or self._ids.uuid()
        budget = await self._escrow.raise_mission(key, request.amount, request_id, caller().subject)
        return pb.TopUpMissionResponse(budget=_shown(budget))

    async def _key(self, kind: str, mission_id: str) -> BudgetKey:
        """Raises NotFound for a mission that does not exist, or is another tenant's."""
        if mission_id:
            await self._missions.get(mission_id)
        return BudgetKey(caller().tenant, kind, mission_id)

    async def _allotment(self, held: Held) -> pb.Allotment:
        run = await self._runs.summary(held.run_id, held.tenant)
        used = next((found for found in run.meters if found.kind == held.kind), st.Meter())
        return pb.Allotment(
            run_id=held.run_id,
            mission_id=held.mission_id,
            phase=run.phase,
            granted=held.granted,
            reserved=used.reserved,
            spent=held.spent if held.settled else used.spent,
            returned=held.granted - held.spent if held.settled else 0,
            settled=held.settled,
        )


def _require_limited(state: st.RunState, kind: str) -> None:
    if own_limit(state, kind) is None and not draws(meter(state, kind)):
        raise Precondition(
            "NOT_LIMITED", f"nothing limits the {kind} of run {state.run_id}: it needs no more", run_id=state.run_id
        )


def _asked(state: st.RunState, request: pb.TopUpRunRequest, grant_id: str) -> Ask:
    found = meter(state, request.kind) or st.Meter()
    return Ask(
        grant_id=grant_id,
        run_id=state.run_id,
        tenant=state.tenant,
        mission_id=state.mission_id,
        kind=request.kind,
        from_mission=found.from_mission,
        from_tenant=found.from_tenant,
        need=request.amount,
        want=request.amount,
    )


def _shown(budget: Budget) -> pb.Budget:
    shown = pb.Budget(
        kind=budget.kind,
        mission_id=budget.mission_id,
        limit=budget.limit_amount,
        allotted=budget.allotted,
        spent=budget.spent,
        returned=budget.returned,
        actor=budget.actor,
    )
    shown.update_time.FromMilliseconds(budget.updated_ms)
    return shown
