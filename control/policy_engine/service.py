"""PolicyService: judges actions, keeps the bundle, and tries candidates on what was decided before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc
from google.protobuf.duration_pb2 import Duration

from control.core.facts import facts_of
from control.journal import shared_journal
from control.policy_engine.decisions import Decisions
from control.policy_engine.engine import Bundle, Judgement
from control.policy_engine.request import questions, questions_from
from control.policy_engine.store import BundleStore, InForce
from infra.auth import caller
from infra.clock import Clock
from infra.digest import digest_message
from infra.errors import InvalidArgument
from infra.ids import Ids
from infra.mesh import Register, Runtime, Service
from skyagent.mission.v1.mission_pb2 import MissionSpec
from skyagent.policy.v1 import decision_pb2 as decision
from skyagent.policy.v1 import policy_service_pb2 as pb
from skyagent.policy.v1 import policy_service_pb2_grpc as rpc

Context = grpc.aio.ServicerContext[object, object]

_OTHER_FACTS = "the facts given are not those of the action; leave them out, they are computed here"
_DEFAULT_TESTED = 1000
_DEFAULT_PAGE = 50


class PolicyServicer(rpc.PolicyServiceServicer):
    """Translates; engine, store and decisions decide."""

    def __init__(self, store: BundleStore, decisions: Decisions, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._decisions = decisions
        self._clock = clock
        self._ids = ids

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        bundle = self._store.current.bundle
        asked = questions(request, caller().tenant)
        judged = bundle.judge(asked)
        if request.HasField("facts") and request.facts != facts_of(request.action):
            judged = Judgement(decision.VERDICT_DENY, errors=(*judged.errors, _OTHER_FACTS))
        made = decision.Decision(
            decision_id=self._ids.ulid(), action_digest=digest_message(request.action), request=asked.canonical()
        )
        made.time.FromMilliseconds(self._clock.now_ms())
        return pb.CheckResponse(decision=_with(made, bundle, judged, _asked_for(request.spec)))

    async def GetBundle(self, request: pb.GetBundleRequest, context: Context) -> pb.GetBundleResponse:
        return pb.GetBundleResponse(bundle=_bundle(self._store.current))

    async def PutBundle(self, request: pb.PutBundleRequest, context: Context) -> pb.PutBundleResponse:
        bundle = await asyncio.to_thread(Bundle, request.policies)
        candidate = InForce(bundle, caller().subject, self._clock.now_ms())
        await asyncio.to_thread(self._store.replace, candidate, expect_digest=request.expect_digest)
        return pb.PutBundleResponse(bundle=_bundle(candidate))

    async def TestBundle(self, request: pb.TestBundleRequest, context: Context) -> pb.TestBundleResponse:
        try:
            candidate = await asyncio.to_thread(Bundle, request.policies)
        except InvalidArgument as bad:
            return pb.TestBundleResponse(errors=[violation.description for violation in bad.violations])
        recorded = await self._decisions.recorded(
            caller().tenant, run_id=request.run_id, limit=request.limit or _DEFAULT_TESTED
        )
        judged = await asyncio.to_thread(lambda: [_again(candidate, before) for before in recorded])
        changed = [one for one in judged if one.before.verdict != one.after.verdict]
        return pb.TestBundleResponse(judged=len(judged), changed=changed)

    async def ListDecisions(self, request: pb.ListDecisionsRequest, context: Context) -> pb.ListDecisionsResponse:
        limit = request.page_size or _DEFAULT_PAGE
        found = await self._decisions.of_run(
            caller().tenant, request.run_id, after_seq=int(request.page_token or 0), limit=limit + 1
        )
        more = str(found[limit - 1].seq) if len(found) > limit else ""
        return pb.ListDecisionsResponse(decisions=[one.decision for one in found[:limit]], next_page_token=more)


def _again(candidate: Bundle, before: decision.Decision) -> pb.ChangedDecision:
    try:
        judged = candidate.judge(questions_from(before.request))
    except ValueError as bad:
        judged = Judgement(decision.VERDICT_DENY, errors=(f"the recorded request cannot be read: {bad}",))
    after = decision.Decision(
        decision_id=before.decision_id, action_digest=before.action_digest, request=before.request, time=before.time
    )
    return pb.ChangedDecision(before=before, after=_with(after, candidate, judged, None))


def _with(made: decision.Decision, bundle: Bundle, judged: Judgement, ttl: Duration | None) -> decision.Decision:
    """The decision with what was judged; a mission's own time for questions goes before the policy's."""
    made.verdict = judged.verdict
    made.bundle_digest = bundle.digest
    made.policy_ids.extend(judged.policy_ids)
    made.reasons.extend(judged.reasons)
    made.errors.extend(judged.errors)
    made.obligations.extend(
        decision.Obligation(
            kind="approval",
            approver=asking.approver,
            ttl=ttl or Duration(seconds=asking.ttl),
            policy_id=asking.policy_id,
            message=asking.message,
        )
        for asking in judged.asking
    )
    return made


def _asked_for(spec: MissionSpec) -> Duration | None:
    return spec.limits.approval_ttl if spec.limits.approval_ttl.ToMilliseconds() > 0 else None


def _bundle(found: InForce) -> pb.Bundle:
    bundle = pb.Bundle(
        policies=found.bundle.policies, schema=found.bundle.schema, digest=found.bundle.digest, actor=found.actor
    )
    if found.time_ms:
        bundle.time.FromMilliseconds(found.time_ms)
    return bundle


@asynccontextmanager
async def _open(runtime: Runtime) -> AsyncGenerator[Register]:
    store = await asyncio.to_thread(BundleStore, runtime.settings.data_dir / "policy")
    decisions = Decisions(await runtime.shared(shared_journal))
    servicer = PolicyServicer(store, decisions, runtime.clock, runtime.ids)
    yield lambda server: rpc.add_PolicyServiceServicer_to_server(servicer, server)


SERVICE = Service("policy-engine", (pb.DESCRIPTOR.services_by_name["PolicyService"],), _open)
