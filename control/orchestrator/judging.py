"""Asking the policy engine about an attempt, and what its answer leads to."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from control.core.budget import limits_in_force, used
from control.core.meters import MONEY, STEPS, WALL_TIME
from control.orchestrator.ledger import Ledger
from infra.auth import acting_for
from infra.errors import SkyError
from infra.local import without_waiting
from infra.status import from_rpc_error
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.policy.v1 import policy_service_pb2 as api
from skyagent.policy.v1 import policy_service_pb2_grpc as rpc
from skyagent.run.v1 import state_pb2 as st

CHECK_DEADLINE = 5.0
"""Seconds that a decision may take."""


class PolicyUnavailable(SkyError):
    """Policy could not be asked; nothing may be dispatched without it."""

    code = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Judge:
    """The policy engine as an owner sees it."""

    policy: rpc.PolicyServiceAsyncStub
    near: bool = False
    """Whether the engine is in this process, so that most of its decisions are not waited for."""

    def at_once(self, ledger: Ledger, record: st.NodeRecord, *, now_ms: int) -> pol.Decision | None:
        """The decision on an action that nobody was asked about, if it can be had without waiting for anything."""
        if not self.near:
            return None
        try:
            return without_waiting(self.decide(ledger, record, approved=False, now_ms=now_ms))
        except PolicyUnavailable:
            return None

    async def decide(self, ledger: Ledger, record: st.NodeRecord, *, approved: bool, now_ms: int) -> pol.Decision:
        """The decision on a step's action.

        Raises:
            PolicyUnavailable: when no decision could be had, with what the engine said.
        """
        folded, state, action = ledger.folded, ledger.state, record.node.step.action
        request = api.CheckRequest(
            tenant=state.tenant,
            mission_id=state.mission_id,
            run_id=state.run_id,
            step_id=record.node.node_id,
            actor=state.actor,
            spec=state.spec,
            action=action,
            approved=approved,
            spent=api.Spent(
                steps=used(folded, STEPS, now_ms),
                cost_microusd=used(folded, MONEY, now_ms),
                wall_seconds=used(folded, WALL_TIME, now_ms) // 1000,
            ),
            limits=limits_in_force(state),
        )
        try:
            with acting_for(state.tenant):
                answer = await self.policy.Check(request, timeout=CHECK_DEADLINE, wait_for_ready=False)
        except grpc.aio.AioRpcError as error:
            why = f"the policy engine gave no decision: {from_rpc_error(error).message}"
            raise PolicyUnavailable("POLICY_UNAVAILABLE", why) from error
        return answer.decision
