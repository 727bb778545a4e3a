from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from control.journal import EventDraft, NewRun, shared_journal
from control.policy_engine.engine import default_policies
from control.policy_engine.service import SERVICE
from control.policy_engine.store import BundleStore
from infra.auth import Role
from infra.digest import digest_message
from infra.errors import Conflict, Denied, InvalidArgument, NotFound, Precondition
from infra.mesh import Runtime
from infra.settings import Settings
from infra.status import from_rpc_error
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1.effect_pb2 import EFFECT_CLASS_ONCE
from skyagent.execution.v1.facts_pb2 import Facts
from skyagent.mission.v1.mission_pb2 import Limits, MissionSpec
from skyagent.policy.v1 import decision_pb2 as decision
from skyagent.policy.v1 import policy_service_pb2 as pb
from skyagent.policy.v1 import policy_service_pb2_grpc as rpc
from skyagent.run.v1.event_pb2 import EventBody, PolicyDecided, RunCreated
from tests.control.meshed import CallingAs, Serve

NO_CLICKS = (
    default_policies() + '\n@id("no.clicks") forbid (principal, action == SkyAgent::Action::"browser.click", resource);'
)


@pytest.fixture
async def runtime(serve: Serve) -> Runtime:
    return await serve([SERVICE])


@pytest.fixture
def policy(runtime: Runtime, calling_as: CallingAs) -> rpc.PolicyServiceAsyncStub:
    return rpc.PolicyServiceStub(calling_as(runtime))


def _check(amount: str = "99999", tenant: str = "default") -> pb.CheckRequest:
    click = br.ClickAction(target=br.Target(ref="f0e1:1"))
    click.expect.add(label="Total", value=amount, target=br.Target(ref="f0e1:2"))
    return pb.CheckRequest(
        tenant=tenant,
        actor="ada",
        spec=MissionSpec(goal="g", allowed_hosts=["shop.example"], limits=Limits(max_steps=9, approve_above_cents=100)),
        action=act.Action(effect_class=EFFECT_CLASS_ONCE, browser=br.BrowserAction(click=click)),
    )


async def _record(runtime: Runtime, *decisions: decision.Decision, tenant: str = "default") -> str:
    journal = await runtime.shared(shared_journal)
    run_id = runtime.ids.ulid()
    bodies = [EventBody(run_created=RunCreated(tenant=tenant))]
    bodies += [EventBody(policy_decided=PolicyDecided(decision=one)) for one in decisions]
    new = NewRun(run_id, runtime.ids.ulid(), tenant, 1, tuple(map(EventDraft.of, bodies)), runtime.ids.ulid())
    await journal.create_run(new)
    return run_id


async def test_a_decision_carries_all_that_its_judgement_rests_on(policy: rpc.PolicyServiceAsyncStub) -> None:
    request = _check()
    made = (await policy.Check(request)).decision
    in_force = (await policy.GetBundle(pb.GetBundleRequest())).bundle
    assert made.verdict == decision.VERDICT_ASK
    assert list(made.policy_ids) == ["ask.amount"]
    assert made.action_digest == digest_message(request.action)
    assert made.bundle_digest == in_force.digest
    assert made.time.seconds > 0
    assert made.obligations[0].ttl.seconds == 900
    assert (
        made.obligations[0].message
        == made.reasons[0]
        == "the amount 99,999.00 is above 1.00, from where on this mission asks"
    )


async def test_the_missions_own_time_for_questions_goes_before_the_policys(policy: rpc.PolicyServiceAsyncStub) -> None:
    request = _check()
    request.spec.limits.approval_ttl.seconds = 20
    assert (await policy.Check(request)).decision.obligations[0].ttl.seconds == 20


async def test_facts_that_are_not_those_of_the_action_deny_it(policy: rpc.PolicyServiceAsyncStub) -> None:
    request = _check("1")
    assert (await policy.Check(request)).decision.verdict == decision.VERDICT_ALLOW
    request.facts.CopyFrom(Facts(intent="view"))
    made = (await policy.Check(request)).decision
    assert made.verdict == decision.VERDICT_DENY
    assert "computed here" in made.errors[0]


async def test_an_agent_of_another_tenant_is_denied(policy: rpc.PolicyServiceAsyncStub) -> None:
    made = (await policy.Check(_check("1", tenant="other"))).decision
    assert (made.verdict, list(made.policy_ids)) == (decision.VERDICT_DENY, ["tenant.isolation"])


async def test_a_check_without_spec_or_action_is_refused_by_field(policy: rpc.PolicyServiceAsyncStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await policy.Check(pb.CheckRequest(tenant="default"))
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgument)
    assert {violation.field for violation in error.violations} == {"spec", "action"}


async def test_a_new_bundle_judges_from_the_next_check_on_and_after_a_restart(
    policy: rpc.PolicyServiceAsyncStub, settings: Settings
) -> None:
    put = (await policy.PutBundle(pb.PutBundleRequest(policies=NO_CLICKS))).bundle
    assert put.actor == "admin-of-default"
    made = (await policy.Check(_check("1"))).decision
    assert (made.verdict, list(made.policy_ids), made.bundle_digest) == (
        decision.VERDICT_DENY,
        ["no.clicks"],
        put.digest,
    )
    assert BundleStore(settings.data_dir / "policy").current.bundle.digest == put.digest


async def test_a_bundle_that_does_not_validate_changes_nothing(policy: rpc.PolicyServiceAsyncStub) -> None:
    before = (await policy.GetBundle(pb.GetBundleRequest())).bundle
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await policy.PutBundle(pb.PutBundleRequest(policies="permit (nobody);"))
    assert from_rpc_error(caught.value).reason == "BAD_BUNDLE"
    assert (await policy.GetBundle(pb.GetBundleRequest())).bundle == before


async def test_a_bundle_replaces_only_the_one_that_was_read(policy: rpc.PolicyServiceAsyncStub) -> None:
    digest = (await policy.GetBundle(pb.GetBundleRequest())).bundle.digest
    await policy.PutBundle(pb.PutBundleRequest(policies=NO_CLICKS, expect_digest=digest))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await policy.PutBundle(pb.PutBundleRequest(policies=default_policies(), expect_digest=digest))
    assert isinstance(from_rpc_error(caught.value), Conflict)


async def test_only_an_administrator_puts_a_bundle(runtime: Runtime, calling_as: CallingAs) -> None:
    operator = rpc.PolicyServiceStub(calling_as(runtime, role=Role.OPERATOR))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await operator.PutBundle(pb.PutBundleRequest(policies=NO_CLICKS))
    assert isinstance(from_rpc_error(caught.value), Denied)


async def test_a_candidate_is_tried_on_what_was_decided(runtime: Runtime, policy: rpc.PolicyServiceAsyncStub) -> None:
    allowed = (await policy.Check(_check("1"))).decision
    asked = (await policy.Check(_check())).decision
    run_id = await _record(runtime, allowed, asked)
    for request in (
        pb.TestBundleRequest(policies=NO_CLICKS, run_id=run_id),
        pb.TestBundleRequest(policies=NO_CLICKS),
    ):
        tried = await policy.TestBundle(request)
        assert tried.judged == 2
        assert [(one.before, one.after.verdict) for one in tried.changed] == [
            (allowed, decision.VERDICT_DENY),
            (asked, decision.VERDICT_DENY),
        ]
    same = await policy.TestBundle(pb.TestBundleRequest(policies=default_policies(), limit=1))
    assert (same.judged, len(same.changed)) == (1, 0)


async def test_a_candidate_that_is_wrong_is_told_so(policy: rpc.PolicyServiceAsyncStub) -> None:
    tried = await policy.TestBundle(pb.TestBundleRequest(policies="permit (principal, action, resource);"))
    assert "give it an id" in tried.errors[0]


async def test_decisions_of_a_run_are_listed_to_its_own_tenant_only(
    runtime: Runtime, policy: rpc.PolicyServiceAsyncStub, calling_as: CallingAs
) -> None:
    made = (await policy.Check(_check())).decision
    run_id = await _record(runtime, made)
    listed = await policy.ListDecisions(pb.ListDecisionsRequest(run_id=run_id))
    assert list(listed.decisions) == [made]
    stranger = rpc.PolicyServiceStub(calling_as(runtime, tenant="other"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stranger.ListDecisions(pb.ListDecisionsRequest(run_id=run_id))
    assert isinstance(from_rpc_error(caught.value), NotFound)
    assert (await stranger.TestBundle(pb.TestBundleRequest(policies=NO_CLICKS))).judged == 0


async def test_decisions_come_in_pages(policy: rpc.PolicyServiceAsyncStub, runtime: Runtime) -> None:
    made = [(await policy.Check(_check())).decision for _ in range(3)]
    run_id = await _record(runtime, *made)
    first = await policy.ListDecisions(pb.ListDecisionsRequest(run_id=run_id, page_size=2))
    rest = await policy.ListDecisions(
        pb.ListDecisionsRequest(run_id=run_id, page_size=2, page_token=first.next_page_token)
    )
    assert [*first.decisions, *rest.decisions] == made
    assert (len(first.decisions), rest.next_page_token) == (2, "")


@pytest.mark.parametrize("content", ["", "{}", '{"policies": "permit (", "actor": "", "time_ms": 0}'])
def test_a_bundle_file_that_cannot_be_used_stops_the_start_with_the_fix(tmp_path: Path, content: str) -> None:
    (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(Precondition, match="mend the file, or remove it"):
        BundleStore(tmp_path)
