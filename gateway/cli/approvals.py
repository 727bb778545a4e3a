"""`skyagent approvals`."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.cli.output import console, print_list, when
from gateway.cli.runs import Json
from gateway.cli.session import perform
from gateway.client import connected
from infra.clock import SystemClock
from infra.ids import system_ids
from infra.settings import load_settings
from skyagent.run.v1 import approval_service_pb2 as api
from skyagent.run.v1 import event_pb2 as ev

COLUMNS = ("approval", "what will happen", "why", "closes", "run")
Id = Annotated[str, typer.Argument(help="Id of the question.")]
Note = Annotated[str, typer.Option(help="A note for the run.")]

app = typer.Typer(add_completion=False, no_args_is_help=True, help="List and answer questions that wait for a person.")


@app.command("ls")
def list_approvals(
    run: Annotated[str, typer.Option(help="Only of this run.")] = "",
    json_lines: Json = False,  # noqa: FBT002
) -> None:
    """List open questions, oldest first."""

    async def work() -> None:
        async with connected(load_settings()) as services:
            found = (await services.approvals.ListApprovals(api.ListApprovalsRequest(run_id=run))).approvals
        print_list(found, COLUMNS, [_row(approval) for approval in found], json_lines=json_lines)

    perform(work())


@app.command("approve")
def approve(approval_id: Id, note: Note = "") -> None:
    """Say yes, to exactly the action that the question is about."""
    perform(_decide(approval_id, ev.APPROVAL_STATE_GRANTED, note))


@app.command("deny")
def deny(approval_id: Id, note: Note = "") -> None:
    """Say no."""
    perform(_decide(approval_id, ev.APPROVAL_STATE_DENIED, note))


async def _decide(approval_id: str, decision: ev.ApprovalState.ValueType, note: str) -> None:
    async with connected(load_settings()) as services:
        seen = await services.approvals.GetApproval(api.GetApprovalRequest(approval_id=approval_id))
        answer = await services.approvals.DecideApproval(
            api.DecideApprovalRequest(
                approval_id=approval_id,
                decision=decision,
                note=note,
                action_digest=seen.approval.record.action_digest,
                request_id=system_ids(SystemClock()).uuid(),
            )
        )
    record = answer.approval.record
    word = ev.ApprovalState.Name(record.state).removeprefix("APPROVAL_STATE_").lower()
    console.print(f"{word}  {record.summary}", markup=False)


def _row(approval: api.Approval) -> tuple[str, ...]:
    record = approval.record
    why = "; ".join(record.reasons)
    return (record.approval_id, record.summary, why, when(record.expire_time), approval.run_id)
