from __future__ import annotations

from collections.abc import Awaitable

import grpc
import pytest

from infra.auth import Role
from infra.digest import digest_message
from infra.errors import Denied, InvalidArgument, NotFound, Precondition, SkyError
from infra.status import from_rpc_error
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_ONCE
from skyagent.run.v1 import approval_service_pb2 as pb
from skyagent.run.v1 import event_pb2 as ev
from tests.control.meshed import CallingAs
from tests.control.mission_api.questions import ACTION, FAR_MS, answer, ask
from tests.control.mission_api.world import Client, World, client_of

GRANTED, DENIED = ev.APPROVAL_STATE_GRANTED, ev.APPROVAL_STATE_DENIED


async def _error(call: Awaitable[object]) -> SkyError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_question_shows_the_exact_action_and_why_it_is_asked(world: World) -> None:
    question = await ask(world)
    answer = await world.client.approvals.GetApproval(pb.GetApprovalRequest(approval_id=question.approval_id))
    record = answer.approval.record
    assert answer.action == ACTION
    assert record.action_digest == digest_message(answer.action)
    assert (record.summary, list(record.reasons), list(record.policy_ids)) == ("Buy it", ["it is dear"], ["ask.amount"])
    assert (record.state, record.expire_time.ToMilliseconds()) == (ev.APPROVAL_STATE_PENDING, FAR_MS)
    assert (answer.approval.run_id, answer.approval.goal) == (question.run_id, "sign in")


async def test_questions_that_wait_are_listed_oldest_first(world: World) -> None:
    questions = [await ask(world) for _ in range(3)]
    await world.client.approvals.DecideApproval(answer(questions[1], DENIED))
    listed = await world.client.approvals.ListApprovals(pb.ListApprovalsRequest())
    assert [one.record.approval_id for one in listed.approvals] == [questions[0].approval_id, questions[2].approval_id]
    denied = await world.client.approvals.ListApprovals(pb.ListApprovalsRequest(states=[DENIED, GRANTED]))
    assert [one.record.approval_id for one in denied.approvals] == [questions[1].approval_id]
    of_run = await world.client.approvals.ListApprovals(pb.ListApprovalsRequest(run_id=questions[2].run_id))
    assert [one.run_id for one in of_run.approvals] == [questions[2].run_id]


async def test_an_answer_reaches_the_run_as_a_command(world: World) -> None:
    question = await ask(world)
    request = answer(question, GRANTED, note="fine")
    decided = (await world.client.approvals.DecideApproval(request)).approval.record
    assert (decided.state, decided.actor, decided.note) == (GRANTED, "admin-of-default", "fine")
    assert decided.decide_time.seconds > 0
    await world.apply_commands(question.ledger)
    assert question.ledger.state.approvals[0].state == GRANTED


async def test_an_answer_about_another_action_is_refused(world: World) -> None:
    question = await ask(world)
    other = act.Action(effect_class=EFFECT_CLASS_ONCE, noop=act.NoopAction(payload=b"buy two"))
    request = answer(question, GRANTED, action_digest=digest_message(other))
    assert (await _error(world.client.approvals.DecideApproval(request))).reason == "APPROVAL_MISMATCH"
    listed = await world.client.approvals.ListApprovals(pb.ListApprovalsRequest())
    assert listed.approvals[0].record.state == ev.APPROVAL_STATE_PENDING


@pytest.mark.parametrize("decision", [GRANTED, DENIED])
async def test_an_answer_that_does_not_say_what_was_seen_is_refused(
    world: World, decision: ev.ApprovalState.ValueType
) -> None:
    question = await ask(world)
    refused = await _error(world.client.approvals.DecideApproval(answer(question, decision, action_digest="")))
    assert isinstance(refused, InvalidArgument)
    assert [violation.field for violation in refused.violations] == ["action_digest"]
    listed = await world.client.approvals.ListApprovals(pb.ListApprovalsRequest())
    assert listed.approvals[0].record.state == ev.APPROVAL_STATE_PENDING


async def test_a_run_that_is_over_asks_nobody_any_more(world: World) -> None:
    question = await ask(world)
    await world.finish(question.ledger)
    assert not (await world.client.approvals.ListApprovals(pb.ListApprovalsRequest())).approvals
    request = pb.GetApprovalRequest(approval_id=question.approval_id)
    record = (await world.client.approvals.GetApproval(request)).approval.record
    assert (record.state, record.note) == (ev.APPROVAL_STATE_EXPIRED, "the run has ended")
    late = await _error(world.client.approvals.DecideApproval(answer(question, GRANTED)))
    assert late.reason == "RUN_ENDED"


async def test_the_first_answer_counts_and_a_later_one_is_told_of_it(world: World, calling_as: CallingAs) -> None:
    question = await ask(world)
    deny = answer(question, DENIED)
    await world.client.approvals.DecideApproval(deny)
    approver = client_of(calling_as, world.runtime)
    late = answer(question, GRANTED)
    told = await _error(approver.approvals.DecideApproval(late))
    assert isinstance(told, Precondition)
    assert (told.reason, told.metadata["status"]) == ("APPROVAL_ALREADY_DECIDED", "DENIED")
    decided = await world.client.approvals.GetApproval(pb.GetApprovalRequest(approval_id=question.approval_id))
    when = decided.approval.record.decide_time.ToJsonString()
    assert f"it was denied by admin-of-default at {when}" in told.message
    assert told.metadata["decided_at"] == when


async def test_the_same_answer_sent_again_is_the_sameanswer(world: World) -> None:
    question = await ask(world)
    request = answer(question, GRANTED, request_id="6f1f2c34-5a6b-4c7d-8e9f-0a1b2c3d4e5f")
    first = await world.client.approvals.DecideApproval(request)
    assert await world.client.approvals.DecideApproval(request) == first


async def test_after_its_time_the_answer_is_no(world: World) -> None:
    question = await ask(world, expires_ms=1)
    late = answer(question, GRANTED)
    assert "its time is over" in (await _error(world.client.approvals.DecideApproval(late))).message


async def test_only_those_who_may_approve_do(world: World, calling_as: CallingAs) -> None:
    question = await ask(world)
    request = answer(question, GRANTED)
    for role in (Role.VIEWER, Role.OPERATOR, Role.INTERNAL):
        stub = client_of(calling_as, world.runtime, role=role).approvals
        assert isinstance(await _error(stub.DecideApproval(request)), Denied)


async def test_another_tenants_question_looks_as_if_it_were_not_there(world: World, stranger: Client) -> None:
    question = await ask(world)
    request = answer(question, GRANTED)
    assert isinstance(await _error(stranger.approvals.DecideApproval(request)), NotFound)
    get = stranger.approvals.GetApproval(pb.GetApprovalRequest(approval_id=question.approval_id))
    assert isinstance(await _error(get), NotFound)
    assert not (await stranger.approvals.ListApprovals(pb.ListApprovalsRequest())).approvals
