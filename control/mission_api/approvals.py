"""ApprovalService."""

from __future__ import annotations

from types import MappingProxyType

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from control.journal import (
    Approval,
    ApprovalDecision,
    ApprovalNotPending,
    ApprovalQuery,
    ApprovalStatus,
    Command,
    Journal,
)
from control.journal.folding import folded_run
from control.mission_api.runs import Runs
from infra.auth import caller
from infra.errors import InvalidArgument, Precondition, Violation
from infra.ids import Ids
from skyagent.run.v1 import approval_service_pb2 as pb
from skyagent.run.v1 import approval_service_pb2_grpc as rpc
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

Context = grpc.aio.ServicerContext[object, object]

_STATES = MappingProxyType(
    {
        ApprovalStatus.PENDING: ev.APPROVAL_STATE_PENDING,
        ApprovalStatus.GRANTED: ev.APPROVAL_STATE_GRANTED,
        ApprovalStatus.DENIED: ev.APPROVAL_STATE_DENIED,
        ApprovalStatus.EXPIRED: ev.APPROVAL_STATE_EXPIRED,
        ApprovalStatus.CONSUMED: ev.APPROVAL_STATE_CONSUMED,
    }
)
_STATUSES = MappingProxyType({state: status for status, state in _STATES.items()})


class ApprovalServicer(rpc.ApprovalServiceServicer):
    """Lists questions and takes the first answer to each."""

    def __init__(self, journal: Journal, runs: Runs, ids: Ids) -> None:
        self._journal = journal
        self._runs = runs
        self._ids = ids

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: Context) -> pb.ListApprovalsResponse:
        if ev.APPROVAL_STATE_UNSPECIFIED in request.states:
            raise InvalidArgument(Violation("states", "name states, or none for those that wait"))
        query = ApprovalQuery(
            tenant=caller().tenant,
            run_id=request.run_id or None,
            statuses=tuple(_STATUSES[state] for state in request.states) or (ApprovalStatus.PENDING,),
            page_size=request.page_size,
            page_token=request.page_token,
        )
        page = await self._journal.approvals(query)
        shown = [await self._shown(approval) for approval in page.approvals]
        return pb.ListApprovalsResponse(approvals=shown, next_page_token=page.next_page_token)

    async def GetApproval(self, request: pb.GetApprovalRequest, context: Context) -> pb.GetApprovalResponse:
        approval = await self._journal.approval(request.approval_id, tenant=caller().tenant)
        found = await folded_run(self._journal, approval.run_id)
        action = found.folded.node(approval.step_id).node.step.action
        return pb.GetApprovalResponse(approval=await self._shown(approval), action=action)

    async def DecideApproval(self, request: pb.DecideApprovalRequest, context: Context) -> pb.DecideApprovalResponse:
        who = caller()
        approval = await self._journal.approval(request.approval_id, tenant=who.tenant)
        payload = cmd.Command(decide=cmd.DecideCommand(approval_id=approval.approval_id))
        decision = ApprovalDecision(
            approval.approval_id, _STATUSES[request.decision], request.note, request.action_digest
        )
        command = Command(
            cmd_id=request.request_id or self._ids.uuid(),
            run_id=approval.run_id,
            tenant=who.tenant,
            kind="DECIDE",
            actor=who.subject,
            payload=payload.SerializeToString(deterministic=True),
            decision=decision,
        )
        try:
            await self._journal.command(command)
        except ApprovalNotPending as late:
            raise _first_answer(await self._journal.approval(approval.approval_id)) from late
        decided = await self._journal.approval(approval.approval_id)
        return pb.DecideApprovalResponse(approval=await self._shown(decided))

    async def _shown(self, approval: Approval) -> pb.Approval:
        run = await self._runs.summary(approval.run_id, approval.tenant)
        return pb.Approval(record=_record(approval), run_id=approval.run_id, mission_id=run.mission_id, goal=run.goal)


def _record(approval: Approval) -> st.ApprovalRecord:
    asked = ev.ApprovalRequested.FromString(approval.body)
    record = st.ApprovalRecord(
        approval_id=approval.approval_id,
        step_id=approval.step_id,
        action_digest=approval.action_digest,
        summary=asked.summary,
        state=_STATES[approval.status],
        reasons=asked.decision.reasons,
        policy_ids=asked.decision.policy_ids,
        actor=approval.decided_by or "",
        note=approval.note,
    )
    record.expire_time.FromMilliseconds(approval.expires_ms)
    record.request_time.FromMilliseconds(approval.requested_ms)
    if approval.decided_ms is not None:
        record.decide_time.FromMilliseconds(approval.decided_ms)
    return record


def _first_answer(approval: Approval) -> Precondition:
    """What a late answer is told: whose answer counts, and when it was given."""
    decided = Timestamp()
    decided.FromMilliseconds(approval.decided_ms or 0)
    if approval.status is ApprovalStatus.PENDING:
        said = "its time is over and the answer is no"
    else:
        by = f" by {approval.decided_by}" if approval.decided_by else ""
        word = "granted" if approval.status is ApprovalStatus.CONSUMED else approval.status.value.lower()
        said = f"it was {word}{by} at {decided.ToJsonString()}"
    return Precondition(
        "APPROVAL_ALREADY_DECIDED",
        f"approval {approval.approval_id}: {said}; the first answer counts",
        approval_id=approval.approval_id,
        status=approval.status.value,
        decided_by=approval.decided_by or "",
        decided_at=decided.ToJsonString() if approval.decided_ms else "",
    )
