import asyncio
from dataclasses import replace

import pytest

from control.journal import (
    Approval,
    ApprovalDecision,
    ApprovalMismatch,
    ApprovalNotFound,
    ApprovalNotPending,
    ApprovalNotUsable,
    ApprovalQuery,
    ApprovalStatus,
    ApprovalUse,
    Command,
    CommandReceipt,
    Projection,
    RunHead,
    StaleHead,
)
from infra.errors import InvalidArgument, SkyError
from tests.control.journal.world import TENANT, World

GRANTED, DENIED, EXPIRED = ApprovalStatus.GRANTED, ApprovalStatus.DENIED, ApprovalStatus.EXPIRED


async def asked(world: World, run: RunHead, ttl_ms: int = 60_000) -> tuple[RunHead, Approval]:
    """The run after it asked, and its question."""
    question = world.question(ttl_ms)
    await world.journal.append(replace(world.result(run), new_approvals=(question,)))
    return await world.journal.head(run.run_id), await world.journal.approval(question.approval_id)


async def decide(
    world: World, question: Approval, status: ApprovalStatus, *, digest: str = "", run_id: str = ""
) -> CommandReceipt:
    decision = ApprovalDecision(question.approval_id, status, "because", digest)
    return await world.journal.command(
        Command(world.ids.uuid(), run_id or question.run_id, TENANT, "decide", "ann", decision=decision)
    )


async def test_a_question_is_open_from_the_commit_of_the_event_that_asks(world: World) -> None:
    run, question = await asked(world, await world.owned())
    assert (question.status, question.run_id, question.tenant) == (ApprovalStatus.PENDING, run.run_id, TENANT)
    assert (question.requested_seq, question.requested_ms) == (run.head_seq, world.clock.now_ms())
    assert (question.body, question.decided_by, question.consumed_by) == (b"may I?", None, None)


async def test_a_run_that_ends_closes_its_own_open_questions_and_no_others(world: World) -> None:
    run, other = await world.owned(), await world.owned()
    run, granted = await asked(world, run)
    run, still_open = await asked(world, run)
    _, of_other = await asked(world, other)
    await decide(world, granted, GRANTED)
    await world.journal.append(replace(world.result(run), projection=Projection("SUCCEEDED", b"", terminal=True)))
    statuses = [(await world.journal.approval(each.approval_id)).status for each in (granted, still_open, of_other)]
    assert statuses == [GRANTED, EXPIRED, ApprovalStatus.PENDING]


async def test_a_refused_append_asks_nothing(world: World) -> None:
    run = await world.owned()
    with pytest.raises(StaleHead):
        await world.journal.append(replace(world.result(run), expect_seq=5, new_approvals=(world.question(),)))
    assert (await world.journal.approvals(ApprovalQuery(TENANT))).approvals == ()


async def test_an_answer_is_kept_with_who_gave_it_and_raises_the_control_generation(world: World) -> None:
    _, question = await asked(world, await world.owned())
    receipt = await decide(world, question, GRANTED)
    answered = await world.journal.approval(question.approval_id)
    assert (answered.status, answered.decided_by, answered.note) == (GRANTED, "ann", "because")
    assert answered.decided_ms == world.clock.now_ms()
    assert receipt.control_gen == 1
    (command,) = await world.journal.pending_commands(question.run_id)
    assert command.decision == ApprovalDecision(question.approval_id, GRANTED, "because")


async def test_of_two_answers_the_first_counts_and_the_second_learns_it(world: World) -> None:
    _, question = await asked(world, await world.owned())
    await decide(world, question, GRANTED)
    with pytest.raises(ApprovalNotPending) as refused:
        await decide(world, question, DENIED)
    assert refused.value.status is GRANTED
    head = await world.journal.head(question.run_id)
    assert (head.control_gen, len(await world.journal.pending_commands(question.run_id))) == (1, 1)


async def test_of_answers_given_at_once_exactly_one_counts(world: World) -> None:
    _, question = await asked(world, await world.owned())
    answers = (GRANTED, DENIED, GRANTED, DENIED)
    outcomes = await asyncio.gather(*(decide(world, question, a) for a in answers), return_exceptions=True)
    assert sum(isinstance(outcome, CommandReceipt) for outcome in outcomes) == 1
    assert (await world.journal.head(question.run_id)).control_gen == 1


async def test_an_answer_at_the_very_end_of_its_time_is_too_late(world: World) -> None:
    _, question = await asked(world, await world.owned(), ttl_ms=1000)
    await world.clock.advance(1)
    with pytest.raises(ApprovalNotPending):
        await decide(world, question, GRANTED)
    assert (await world.journal.approval(question.approval_id)).status is ApprovalStatus.PENDING


async def test_a_question_expires_at_its_time_and_not_before(world: World) -> None:
    _, question = await asked(world, await world.owned(), ttl_ms=1000)
    await world.clock.advance(0.999)
    assert await world.journal.due_approvals() == ()
    with pytest.raises(ApprovalNotPending):
        await decide(world, question, EXPIRED)
    await world.clock.advance(0.001)
    assert [due.approval_id for due in await world.journal.due_approvals()] == [question.approval_id]
    await decide(world, question, EXPIRED)
    assert (await world.journal.approval(question.approval_id)).status is EXPIRED
    assert await world.journal.due_approvals() == ()


def test_the_states_of_a_question_are_stored_under_the_names_they_always_had() -> None:
    assert [status.value for status in ApprovalStatus] == ["PENDING", "GRANTED", "DENIED", "EXPIRED", "CONSUMED"]


async def test_of_two_yeses_to_the_same_action_an_intent_uses_only_the_one_it_names(world: World) -> None:
    run, first = await asked(world, await world.owned())
    run, second = await asked(world, run)
    for question in (first, second):
        await decide(world, question, GRANTED)
    run = await world.journal.head(run.run_id)
    use = ApprovalUse(second.approval_id, second.action_digest)
    await world.journal.append(replace(world.intent(run), consume=use))
    statuses = [(await world.journal.approval(question.approval_id)).status for question in (first, second)]
    assert statuses == [GRANTED, ApprovalStatus.CONSUMED]


async def test_an_answer_about_another_action_is_refused(world: World) -> None:
    _, question = await asked(world, await world.owned())
    with pytest.raises(ApprovalMismatch):
        await decide(world, question, GRANTED, digest="b3:other")
    await decide(world, question, GRANTED, digest=question.action_digest)


async def test_a_question_cannot_be_answered_through_another_run(world: World) -> None:
    _, question = await asked(world, await world.owned())
    other = await world.owned()
    with pytest.raises(ApprovalNotFound):
        await decide(world, question, GRANTED, run_id=other.run_id)
    assert (await world.journal.head(other.run_id)).control_gen == 0


@pytest.mark.parametrize("status", [ApprovalStatus.PENDING, ApprovalStatus.CONSUMED])
async def test_only_a_decision_can_be_decided(world: World, status: ApprovalStatus) -> None:
    _, question = await asked(world, await world.owned())
    with pytest.raises(InvalidArgument):
        await decide(world, question, status)


async def granted(world: World) -> tuple[RunHead, Approval]:
    _, question = await asked(world, await world.owned())
    await decide(world, question, GRANTED)
    return await world.journal.head(question.run_id), question


async def test_the_intent_consumes_its_approval_in_its_own_commit(world: World) -> None:
    run, question = await granted(world)
    intent = replace(world.intent(run), consume=ApprovalUse(question.approval_id, question.action_digest))
    await world.journal.append(intent)
    used = await world.journal.approval(question.approval_id)
    assert (used.status, used.consumed_by) == (ApprovalStatus.CONSUMED, intent.append_id)


async def test_an_approval_is_used_once(world: World) -> None:
    run, question = await granted(world)
    use = ApprovalUse(question.approval_id, question.action_digest)
    first = await world.journal.append(replace(world.intent(run), consume=use))
    with pytest.raises(ApprovalNotUsable):
        await world.journal.append(replace(world.intent(run), expect_seq=first.seq, consume=use))
    assert (await world.journal.head(run.run_id)).head_seq == first.seq


async def test_an_approval_is_for_the_exact_action(world: World) -> None:
    run, question = await granted(world)
    with pytest.raises(ApprovalNotUsable):
        await world.journal.append(replace(world.intent(run), consume=ApprovalUse(question.approval_id, "b3:changed")))
    assert (await world.journal.approval(question.approval_id)).status is GRANTED


async def test_an_approval_is_of_its_own_run(world: World) -> None:
    _, question = await granted(world)
    other = await world.owned()
    use = ApprovalUse(question.approval_id, question.action_digest)
    with pytest.raises(ApprovalNotUsable):
        await world.journal.append(replace(world.intent(other), consume=use))


@pytest.mark.parametrize("answer", [None, DENIED])
async def test_only_a_granted_approval_can_be_used(world: World, answer: ApprovalStatus | None) -> None:
    run, question = await asked(world, await world.owned())
    if answer is not None:
        await decide(world, question, answer)
    run = await world.journal.head(run.run_id)
    use = ApprovalUse(question.approval_id, question.action_digest)
    with pytest.raises(ApprovalNotUsable):
        await world.journal.append(replace(world.intent(run), consume=use))


async def test_a_refused_intent_consumes_nothing(world: World) -> None:
    run, question = await granted(world)
    use = ApprovalUse(question.approval_id, question.action_digest)
    await world.told(run)
    with pytest.raises(SkyError):
        await world.journal.append(replace(world.intent(run), consume=use))
    assert (await world.journal.approval(question.approval_id)).status is GRANTED


async def test_the_same_intent_again_is_not_a_second_use(world: World) -> None:
    run, question = await granted(world)
    intent = replace(world.intent(run), consume=ApprovalUse(question.approval_id, question.action_digest))
    assert await world.journal.append(intent) == await world.journal.append(intent)


async def test_two_intents_in_one_batch_cannot_share_an_approval(world: World) -> None:
    run, question = await granted(world)
    use = ApprovalUse(question.approval_id, question.action_digest)
    intents = [replace(world.intent(run), consume=use) for _ in range(2)]
    outcomes = await asyncio.gather(*map(world.journal.append, intents), return_exceptions=True)
    assert sum(not isinstance(outcome, BaseException) for outcome in outcomes) == 1


async def test_questions_are_listed_by_tenant_run_and_status_oldest_first(world: World) -> None:
    run = await world.owned()
    run, first = await asked(world, run)
    run, second = await asked(world, run)
    _, elsewhere = await asked(world, await world.owned("other"))
    await decide(world, second, DENIED)

    async def listed(query: ApprovalQuery) -> list[str]:
        return [found.approval_id for found in (await world.journal.approvals(query)).approvals]

    assert await listed(ApprovalQuery(TENANT)) == [first.approval_id, second.approval_id]
    assert await listed(ApprovalQuery(TENANT, statuses=(DENIED,))) == [second.approval_id]
    assert await listed(ApprovalQuery(TENANT, run_id=elsewhere.run_id)) == []
    with pytest.raises(ApprovalNotFound):
        await world.journal.approval(elsewhere.approval_id, tenant=TENANT)


async def test_pages_of_questions_hold_each_once(world: World) -> None:
    run = await world.owned()
    questions = [world.question() for _ in range(5)]
    await world.journal.append(replace(world.result(run), new_approvals=tuple(questions)))
    seen: list[str] = []
    token = ""
    while True:
        page = await world.journal.approvals(ApprovalQuery(TENANT, page_size=2, page_token=token))
        seen += [found.approval_id for found in page.approvals]
        token = page.next_page_token
        if not token:
            break
    assert seen == [question.approval_id for question in questions]


async def test_the_longest_overdue_questions_come_first_and_no_more_than_asked_for(world: World) -> None:
    run = await world.owned()
    late, early, answered = world.question(3000), world.question(1000), world.question(2000)
    await world.journal.append(replace(world.result(run), new_approvals=(late, early, answered)))
    await decide(world, await world.journal.approval(answered.approval_id), DENIED)
    await world.clock.advance(5)
    due = await world.journal.due_approvals()
    assert [question.approval_id for question in due] == [early.approval_id, late.approval_id]
    assert [question.approval_id for question in await world.journal.due_approvals(limit=1)] == [early.approval_id]


async def test_a_page_that_holds_the_last_question_is_the_last_page(world: World) -> None:
    run = await world.owned()
    questions = (world.question(), world.question())
    await world.journal.append(replace(world.result(run), new_approvals=questions))
    page = await world.journal.approvals(ApprovalQuery(TENANT, page_size=2))
    assert (len(page.approvals), page.next_page_token) == (2, "")
