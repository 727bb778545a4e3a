import pytest

from control.journal import (
    ApprovalMismatch,
    ApprovalNotFound,
    ApprovalNotPending,
    ApprovalNotUsable,
    ApprovalStatus,
    CommandNotPending,
    ControlMoved,
    IdReused,
    RunEnded,
    RunNotFound,
    StaleHead,
    StaleOwner,
)
from infra.errors import SkyError

REFUSALS = {
    "STALE_OWNER": (StaleOwner("R", 3, 4), {"run_id": "R", "epoch": "4"}),
    "CONTROL_MOVED": (ControlMoved("R", 3, 4), {"run_id": "R", "control_gen": "4"}),
    "STALE_HEAD": (StaleHead("R", 3, 4), {"run_id": "R", "head_seq": "4"}),
    "APPROVAL_NOT_USABLE": (ApprovalNotUsable("A", "it is DENIED"), {"approval_id": "A"}),
    "APPROVAL_NOT_PENDING": (
        ApprovalNotPending("A", ApprovalStatus.DENIED, "came too late"),
        {"approval_id": "A", "status": "DENIED"},
    ),
    "APPROVAL_MISMATCH": (ApprovalMismatch("A"), {"approval_id": "A"}),
    "COMMAND_NOT_PENDING": (CommandNotPending("R", "C"), {"run_id": "R", "cmd_id": "C"}),
    "RUN_ENDED": (RunEnded("R"), {"run_id": "R"}),
    "RUN_NOT_FOUND": (RunNotFound("R"), {"run_id": "R"}),
    "APPROVAL_NOT_FOUND": (ApprovalNotFound("A"), {"approval_id": "A"}),
    "ID_REUSED": (IdReused("cmd_id", "C"), {"cmd_id": "C"}),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_carries_the_reason_and_the_values_that_clients_act_on(reason: str) -> None:
    refusal: SkyError = REFUSALS[reason][0]
    assert (refusal.reason, dict(refusal.metadata)) == (reason, REFUSALS[reason][1])
