"""A judgement that is recalled is the one that would be made now, whatever policies make of what was spent."""

import cedarpy
import pytest

from control.policy_engine.engine import Bundle, default_policies
from control.policy_engine.request import questions, questions_from
from skyagent.execution.v1 import action_pb2 as act
from skyagent.mission.v1.mission_pb2 import Limits, MissionSpec
from skyagent.policy.v1 import decision_pb2 as pb
from skyagent.policy.v1.policy_service_pb2 import CheckRequest, Spent

PERMIT = '@id("all") permit (principal, action, resource);'
LOOKS = (
    "context.spent.steps >= resource.max_steps",
    "context.spent.steps == 3",
    "4 < context.spent.steps",
    "resource.max_steps != context.spent.steps",
    "context.spent.steps + 2 > resource.max_steps",
    "context.spent.steps * 2 == 6",
    "context.spent.steps > context.spent.cost_microusd",
    "context.spent == {steps: 3, cost_microusd: 2, wall_seconds: 0}",
    "[1, 5].contains(context.spent.steps)",
    "context == context && context.spent.steps > 3",
    "if context.spent.cost_microusd > 2 then context.spent.steps > 3 else false",
    '[context].contains(context) && context["spent"].steps > 3',
    "context has spent && context.spent has steps && context.spent.steps < 2",
)


def _check(steps: int, max_steps: int = 5, tenant: str = "t") -> CheckRequest:
    spec = MissionSpec(goal="g", limits=Limits(max_steps=max_steps))
    action = act.Action(noop=act.NoopAction())
    return CheckRequest(tenant=tenant, spec=spec, action=action, spent=Spent(steps=steps, cost_microusd=steps // 2 + 1))


@pytest.mark.parametrize("looks", LOOKS)
def test_what_is_recalled_is_what_would_be_judged_now(looks: str) -> None:
    policies = f'{PERMIT} @id("spent") forbid (principal, action, resource) when {{ {looks} }};'
    bundle = Bundle(policies)
    verdicts: set[pb.Verdict.ValueType] = set()
    for steps in (*range(9), *range(9)):
        asked = questions(_check(steps), "t")
        judged = bundle.judge(asked)
        assert judged == Bundle(policies).judge(asked), steps
        verdicts.add(judged.verdict)
    assert verdicts == {pb.VERDICT_ALLOW, pb.VERDICT_DENY}


def test_cedar_is_asked_again_only_when_spending_comes_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    really = cedarpy.is_authorized  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]

    def counted(*request: object, **more: object) -> object:
        asked.append(request)
        return really(*request, **more)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]

    monkeypatch.setattr(cedarpy, "is_authorized", counted)
    bundle = Bundle(default_policies())
    verdicts = [bundle.judge(questions(_check(steps), "t")).verdict for steps in range(7)]
    assert verdicts == [pb.VERDICT_ALLOW] * 5 + [pb.VERDICT_DENY] * 2
    assert len(asked) == 3  # below, at and beyond the limit


def test_another_mission_or_action_is_another_question() -> None:
    bundle = Bundle(default_policies())
    assert bundle.judge(questions(_check(4), "t")).verdict == pb.VERDICT_ALLOW
    assert bundle.judge(questions(_check(4, max_steps=3), "t")).verdict == pb.VERDICT_DENY
    assert bundle.judge(questions(_check(4), "another")).verdict == pb.VERDICT_DENY
    other = _check(4)
    other.action.Clear()
    assert bundle.judge(questions(other, "t")).verdict == pb.VERDICT_DENY


@pytest.mark.parametrize("spent", [b"true", b"9223372036854775808", b'"1"', b"1.0", b"[]"])
def test_spending_that_is_no_number_is_never_taken_for_one(spent: bytes) -> None:
    bundle = Bundle(default_policies())
    asked = questions(_check(1), "t")
    assert bundle.judge(asked).verdict == pb.VERDICT_ALLOW
    damaged = asked.canonical().replace(b'"steps":1', b'"steps":' + spent)
    assert bundle.judge(questions_from(damaged)).verdict == pb.VERDICT_DENY
