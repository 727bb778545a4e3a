"""A run that asks a person, and answers."""

from __future__ import annotations

from dataclasses import dataclass

from control.journal import NewApproval
from control.orchestrator.ledger import Also, Ledger
from infra.digest import digest_message
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_ONCE
from skyagent.policy.v1.decision_pb2 import Decision
from skyagent.run.v1 import approval_service_pb2 as pb
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from tests.control.mission_api.world import World

ACTION = act.Action(effect_class=EFFECT_CLASS_ONCE, noop=act.NoopAction(payload=b"buy"))
FAR_MS = 4_000_000_000_000


@dataclass(frozen=True, slots=True)
class Question:
    approval_id: str
    run_id: str
    step_id: str
    ledger: Ledger


async def ask(world: World, expires_ms: int = FAR_MS) -> Question:
    run_id = (await world.create()).run_id
    ledger = await world.owned(run_id)
    approval_id, step_id = world.runtime.ids.ulid(), world.runtime.ids.ulid()
    digest = digest_message(ACTION)
    asked = ev.ApprovalRequested(
        approval_id=approval_id,
        step_id=step_id,
        action_digest=digest,
        summary="Buy it",
        decision=Decision(reasons=["it is dear"], policy_ids=["ask.amount"]),
    )
    asked.expire_time.FromMilliseconds(expires_ms)
    node = plan.PlanNode(node_id=step_id, title="Buy", step=plan.Step(action=ACTION))
    question = NewApproval(approval_id, step_id, digest, expires_ms, asked.SerializeToString(deterministic=True))
    await ledger.commit(
        [
            ev.EventBody(plan_extended=ev.PlanExtended(nodes=[node])),
            ev.EventBody(approval_requested=asked),
        ],
        Also(questions=(question,)),
    )
    return Question(approval_id, run_id, step_id, ledger)


def answer(question: Question, decision: ev.ApprovalState.ValueType, **more: str) -> pb.DecideApprovalRequest:
    """An answer to what the question shows."""
    seen = {"action_digest": digest_message(ACTION), **more}
    return pb.DecideApprovalRequest(approval_id=question.approval_id, decision=decision, **seen)  # pyright: ignore[reportArgumentType]
