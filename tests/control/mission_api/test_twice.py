"""Every verb may be sent again: after its answer got lost, or at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from control.core.meters import STEPS
from skyagent.budget.v1 import budget_service_pb2 as budgets
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.mission.v1.mission_pb2 import Limits
from skyagent.run.v1 import approval_service_pb2 as approvals
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import run_service_pb2 as runs
from tests.control.mission_api.questions import Question, answer, ask
from tests.control.mission_api.world import World

FAR = Timestamp(seconds=4_000_000_000)
SERVICES = (
    runs.DESCRIPTOR.services_by_name["RunService"],
    approvals.DESCRIPTOR.services_by_name["ApprovalService"],
    budgets.DESCRIPTOR.services_by_name["BudgetService"],
)
STARTS = ("StartRun", "ForkRun")
"""Verbs that start a run; their request_id is that run's."""


async def _mission(world: World, question: Question) -> str:
    listed = await world.client.runs.ListRuns(runs.ListRunsRequest())
    return next(run.mission_id for run in listed.runs if run.run_id == question.run_id)


async def _uncertain(world: World, question: Question) -> str:
    step_id = world.runtime.ids.ulid()
    await question.ledger.commit(
        [
            ev.EventBody(plan_extended=ev.PlanExtended(nodes=[plan.PlanNode(node_id=step_id, step=plan.Step())])),
            ev.EventBody(step_intended=ev.StepIntended(step_id=step_id, attempt=1)),
            ev.EventBody(step_uncertain=ev.StepUncertain(step_id=step_id, attempt=1)),
        ]
    )
    return step_id


Make = Callable[[World, Question], Awaitable[Message]]


def about_run(request: type[Message], **more: object) -> Make:
    async def make(_world: World, question: Question) -> Message:
        return request(run_id=question.run_id, **more)  # pyright: ignore[reportCallIssue]

    return make


async def _resolve(world: World, question: Question) -> Message:
    step_id = await _uncertain(world, question)
    return runs.ResolveStepRequest(run_id=question.run_id, step_id=step_id, effect=eff.EFFECT_DONE)


async def _start(world: World, question: Question) -> Message:
    return runs.StartRunRequest(mission_id=await _mission(world, question))


async def _decide(_world: World, question: Question) -> Message:
    return answer(question, ev.APPROVAL_STATE_GRANTED)


async def _raise(world: World, _question: Question) -> Message:
    mission_id = (await world.create(Limits(max_steps=5), hold=True)).mission.mission_id
    return budgets.TopUpMissionRequest(mission_id=mission_id, kind=STEPS, amount=3)


VERBS: dict[str, Make] = {
    "StartRun": _start,
    "PauseRun": about_run(runs.PauseRunRequest, reason="lunch"),
    "ResumeRun": about_run(runs.ResumeRunRequest),
    "CancelRun": about_run(runs.CancelRunRequest, reason="enough"),
    "SteerRun": about_run(runs.SteerRunRequest, message="use the other form", goal="all of them"),
    "AdjustRun": about_run(runs.AdjustRunRequest, priority=5),
    "AdjustRun, when": about_run(runs.AdjustRunRequest, deadline=FAR),
    "AdjustRun, how": about_run(runs.AdjustRunRequest, retry=cmd.RetryPolicy(max_attempts=5)),
    "ForkRun": about_run(runs.ForkRunRequest, seq=1),
    "ResolveStep": _resolve,
    "DecideApproval": _decide,
    "TopUpRun": about_run(budgets.TopUpRunRequest, kind=STEPS, amount=3),
    "TopUpMission": _raise,
}


def test_every_verb_that_may_be_sent_again_is_tried() -> None:
    repeatable = {
        method.name
        for service in SERVICES
        for method in service.methods
        if "request_id" in method.input_type.fields_by_name
    }
    assert repeatable == {verb.partition(",")[0] for verb in VERBS}


@pytest.mark.parametrize("verb", VERBS)
async def test_a_verb_that_is_sent_again_has_one_effect_also_at_the_same_moment(world: World, verb: str) -> None:
    question = await ask(world)
    request = await VERBS[verb](world, question)
    request_id = world.runtime.ids.uuid()
    setattr(request, "request_id", request_id)  # noqa: B010 - several types of message
    call = _call(world, verb)
    before = await _written(world, question)
    answers = await asyncio.gather(*(call(request) for _ in range(4)))
    once = await _written(world, question)
    await world.apply_commands(question.ledger)
    applied = await _written(world, question)
    answers.append(await call(request))
    assert await _written(world, question) == applied
    assert once == (before[0] + _commands(verb), before[1] + (verb in STARTS), _limit(verb))
    if verb in STARTS:
        assert len({MessageToDict(each)["run"]["runId"] for each in answers}) == 1
    elif _commands(verb):  # the same id for something else is refused
        other = runs.PauseRunRequest(run_id=question.run_id, reason="something else", request_id=request_id)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await world.client.runs.PauseRun(other)
        assert refused.value.code() == grpc.StatusCode.ALREADY_EXISTS


def _call(world: World, verb: str) -> Callable[[Message], Awaitable[Message]]:
    name, client = verb.partition(",")[0], world.client
    stub = next(stub for stub in (client.runs, client.approvals, client.budgets) if hasattr(stub, name))
    return getattr(stub, name)


def _commands(verb: str) -> int:
    return int(verb not in ("StartRun", "TopUpMission"))


def _limit(verb: str) -> int:
    return 8 if verb == "TopUpMission" else 0


async def _written(world: World, question: Question) -> tuple[int, int, int]:
    """How many commands were given to the run, how many runs there are, and what the mission's budget allows."""
    head = await question.ledger.journal.head(question.run_id)
    listed = (await world.client.runs.ListRuns(runs.ListRunsRequest())).runs
    found = (await world.client.budgets.ListBudgets(budgets.ListBudgetsRequest())).budgets
    return head.control_gen, len(listed), sum(budget.limit for budget in found)
