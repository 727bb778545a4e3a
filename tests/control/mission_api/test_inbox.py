"""One list of all that waits for a person's word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import grpc
import pytest

from control.orchestrator.ledger import Ledger
from infra.errors import Precondition, SkyError
from infra.status import from_rpc_error
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import run_service_pb2 as pb
from tests.control.meshed import CallingAs
from tests.control.mission_api.questions import answer, ask
from tests.control.mission_api.world import Client, World, client_of


async def inbox(client: Client) -> list[pb.InboxItem]:
    return list((await client.runs.ListInbox(pb.ListInboxRequest())).items)


async def begun(world: World) -> tuple[Ledger, str]:
    """A run in which one step that must not happen twice has begun."""
    ledger, step_id = await world.owned((await world.create()).run_id), world.runtime.ids.ulid()
    once = act.Action(effect_class=eff.EFFECT_CLASS_ONCE, noop=act.NoopAction())
    node = plan.PlanNode(node_id=step_id, title="Send the letter", step=plan.Step(action=once))
    intended = ev.StepIntended(step_id=step_id, attempt=1, effect_class=eff.EFFECT_CLASS_ONCE)
    await ledger.commit(
        [ev.EventBody(plan_extended=ev.PlanExtended(nodes=[node])), ev.EventBody(step_intended=intended)]
    )
    return ledger, step_id


async def blocked(world: World, reason: str, detail: str) -> tuple[str, str]:
    ledger, step_id = await begun(world)
    await ledger.commit([ev.EventBody(run_blocked=ev.RunBlocked(reason=reason, detail=detail))])
    return ledger.head.run_id, step_id


async def uncertain(world: World) -> tuple[Ledger, str]:
    ledger, step_id = await begun(world)
    told = ev.StepUncertain(step_id=step_id, attempt=1, known="the worker died while it sent")
    await ledger.commit([ev.EventBody(step_uncertain=told)])
    return ledger, step_id


async def test_a_question_stands_in_the_inbox_until_it_is_answered(world: World) -> None:
    question = await ask(world)
    (item,) = await inbox(world.client)
    assert (item.kind, item.run_id, item.step_id) == (pb.INBOX_KIND_APPROVAL, question.run_id, question.step_id)
    assert (item.title, item.known, item.goal) == ("Buy it", "it is dear", "sign in")
    assert list(item.answers) == [
        f"skyagent approvals approve {question.approval_id}",
        f"skyagent approvals deny {question.approval_id}",
    ]
    await world.client.approvals.DecideApproval(answer(question, ev.APPROVAL_STATE_GRANTED))
    await world.apply_commands(question.ledger)
    assert await inbox(world.client) == []


async def test_an_uncertain_step_says_what_is_known_and_how_to_answer(world: World) -> None:
    ledger, step_id = await uncertain(world)
    (item,) = await inbox(world.client)
    assert (item.kind, item.title) == (pb.INBOX_KIND_UNCERTAIN_STEP, "Send the letter")
    assert item.known == "the worker died while it sent"
    resolve = f"skyagent runs resolve {ledger.head.run_id} {step_id}"
    assert list(item.answers) == [f"{resolve} --happened", f"{resolve} --did-not-happen"]


async def test_what_a_worker_that_is_away_may_have_begun_is_asked_about(world: World) -> None:
    run_id, step_id = await blocked(world, "WORKER_AWAY", "worker noop-1 may have begun it and is away")
    (item,) = await inbox(world.client)
    assert (item.kind, item.step_id) == (pb.INBOX_KIND_WORKER_AWAY, step_id)
    assert item.answers[0] == f"skyagent runs resolve {run_id} {step_id} --happened"


async def test_a_journal_that_is_behind_and_a_budget_that_is_used_up_stand_in_it_too(world: World) -> None:
    behind, _ = await blocked(world, "LOG_BEHIND", "worker noop-1 did what this log does not know")
    ledger, _ = await begun(world)
    more = cmd.Command(budget=cmd.BudgetCommand(grant_id="g", kind="steps", amount=0))
    ledger.state.spec.limits.max_steps = 1
    await ledger.commit(
        [
            ev.EventBody(command_applied=ev.CommandApplied(command=more)),
            ev.EventBody(run_blocked=ev.RunBlocked(reason="BUDGET_EXHAUSTED", detail="1 step is missing")),
        ]
    )
    items = {item.run_id: item for item in await inbox(world.client)}
    assert items[behind].kind == pb.INBOX_KIND_LOG_BEHIND
    assert list(items[behind].answers) == [f"skyagent runs resume {behind}", f"skyagent runs cancel {behind}"]
    out = items[ledger.head.run_id]
    assert (out.kind, out.known) == (pb.INBOX_KIND_BUDGET_EXHAUSTED, "1 step is missing")


async def test_pages_of_the_inbox_hold_all_that_waits_newest_run_first_and_nothing_else(
    world: World, stranger: Client
) -> None:
    waiting = [(await uncertain(world))[0].head.run_id for _ in range(3)]
    await world.create()
    await world.finish((await uncertain(world))[0])
    found, token = list[str](), ""
    while True:
        page = await world.client.runs.ListInbox(pb.ListInboxRequest(page_size=2, page_token=token))
        found += [item.run_id for item in page.items]
        token = page.next_page_token
        if not token:
            break
    assert found == waiting[::-1]
    assert await inbox(stranger) == []


async def error(call: Awaitable[object]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_of_two_people_who_answer_at_once_one_wins_and_the_other_is_told_by_whom_and_when(
    world: World, calling_as: CallingAs
) -> None:
    question = await ask(world)
    other = client_of(calling_as, world.runtime)
    yes, no = answer(question, ev.APPROVAL_STATE_GRANTED), answer(question, ev.APPROVAL_STATE_DENIED)
    answers = await asyncio.gather(
        world.client.approvals.DecideApproval(yes), other.approvals.DecideApproval(no), return_exceptions=True
    )
    lost = [from_rpc_error(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert [each.reason for each in lost] == ["APPROVAL_ALREADY_DECIDED"]
    assert (lost[0].metadata["decided_by"], lost[0].metadata["decided_at"][:2]) == ("admin-of-default", "20")


async def test_of_two_words_about_an_uncertain_step_the_first_counts_before_and_after_it_is_applied(
    world: World,
) -> None:
    ledger, step_id = await uncertain(world)
    told = {"run_id": ledger.head.run_id, "step_id": step_id}
    yes = pb.ResolveStepRequest(effect=eff.EFFECT_DONE, note="I saw it", **told)
    no = pb.ResolveStepRequest(effect=eff.EFFECT_NONE, **told)
    answers = await asyncio.gather(
        world.client.runs.ResolveStep(yes), world.client.runs.ResolveStep(no), return_exceptions=True
    )
    lost = [from_rpc_error(each) for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert [each.reason for each in lost] == ["STEP_ALREADY_ANSWERED"]
    for _ in range(2):
        late = await error(world.client.runs.ResolveStep(no))
        assert isinstance(late, Precondition)
        assert (late.reason, late.metadata["decided_by"]) == ("STEP_ALREADY_ANSWERED", "admin-of-default")
        await world.apply_commands(ledger)
    assert ledger.folded.node(step_id).state in (ev.NODE_STATE_SUCCEEDED, ev.NODE_STATE_PENDING)
    resolved = [kind for kind in await _kinds(world, ledger) if kind == "uncertainty_resolved"]
    assert len(resolved) == 1


async def _kinds(world: World, ledger: Ledger) -> list[str]:
    listed = await world.client.runs.ListEvents(pb.ListEventsRequest(run_id=ledger.head.run_id))
    return [event.body.WhichOneof("kind") or "" for event in listed.events]


async def test_a_changed_goal_shows_in_lists_and_the_planner_says_that_it_heeds_none(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    steer = pb.SteerRunRequest(run_id=run_id, message="hurry", goal="sign in twice")
    answered = await world.client.runs.SteerRun(steer)
    assert "the template login_flow plans without a model and heeds neither" in answered.note
    await world.apply_commands(ledger)
    (run,) = (await world.client.runs.ListRuns(pb.ListRunsRequest())).runs
    assert run.goal == "sign in twice"
    state = (await world.client.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
    assert (state.goal, state.spec.goal, list(state.steering)) == ("sign in twice", "sign in", ["hurry"])
    assert state.steering_note == answered.note
    assert (await _kinds(world, ledger))[-3:] == ["command_applied", "goal_changed", "steering_answered"]
    await world.client.runs.SteerRun(pb.SteerRunRequest(run_id=run_id, message="hurry more"))
    await world.apply_commands(ledger)
    assert (ledger.state.goal, list(ledger.state.steering)) == ("sign in twice", ["hurry", "hurry more"])


async def test_how_a_run_retries_is_changed_from_outside_within_bounds(world: World) -> None:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    policy = cmd.RetryPolicy(max_attempts=5, max_restarts=0)
    policy.first_delay.FromMilliseconds(100)
    await world.client.runs.AdjustRun(pb.AdjustRunRequest(run_id=run_id, retry=policy))
    await world.apply_commands(ledger)
    assert ledger.state.retry == policy
    refused = await error(
        world.client.runs.AdjustRun(pb.AdjustRunRequest(run_id=run_id, retry=cmd.RetryPolicy(max_attempts=11)))
    )
    assert [each.field for each in getattr(refused, "violations", ())] == ["retry.max_attempts"]
    await world.client.runs.AdjustRun(pb.AdjustRunRequest(run_id=run_id, retry=cmd.RetryPolicy()))
    await world.apply_commands(ledger)
    assert ledger.state.retry == cmd.RetryPolicy()
