"""What a run's state means to whoever started it. Pure."""

from __future__ import annotations

from control.core.inbox import items
from control.core.run import BUDGET_EXHAUSTED, RunFold
from gateway.cli.exits import Exit
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

_BUDGET_WORDS = ("BUDGET", "DEADLINE", "LIMIT")


def exit_of_run(state: st.RunState) -> Exit | None:
    """The exit code for a run in this state; None while it can go on by itself."""
    match state.phase:
        case ev.RUN_PHASE_SUCCEEDED:
            return Exit.SUCCEEDED
        case ev.RUN_PHASE_BUDGET_EXHAUSTED:
            return Exit.BUDGET
        case ev.RUN_PHASE_FAILED | ev.RUN_PHASE_CANCELLED:
            return _failure(state.reason)
        case ev.RUN_PHASE_WAITING | ev.RUN_PHASE_PAUSED:
            return Exit.BUDGET if state.blocked_reason == BUDGET_EXHAUSTED else Exit.WAITS_FOR_PERSON
        case _:
            return None


def ended(state: st.RunState) -> bool:
    """Whether nothing will happen any more."""
    return state.phase in (ev.RUN_PHASE_SUCCEEDED, ev.RUN_PHASE_FAILED, ev.RUN_PHASE_CANCELLED)


def pending(state: st.RunState) -> list[st.ApprovalRecord]:
    """Questions that wait for a person, oldest first."""
    return [approval for approval in state.approvals if approval.state == ev.APPROVAL_STATE_PENDING]


def answers_of(state: st.RunState) -> list[str]:
    """The commands by which a person lets a waiting run go on: one for each thing that waits."""
    return [item.answers[0] for item in items(RunFold(state)) if item.answers]


def _failure(reason: str) -> Exit:
    if reason.startswith("DENIED"):
        return Exit.DENIED
    if any(word in reason for word in _BUDGET_WORDS):
        return Exit.BUDGET
    return Exit.FAILED
