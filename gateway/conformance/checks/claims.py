"""What a check claims of an answer; Failed says what it was instead."""

from __future__ import annotations

from gateway.conformance.verdicts import Failed
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as pb

EFFECTS_KNOWN = (eff.EFFECT_NONE, eff.EFFECT_DONE, eff.EFFECT_UNKNOWN)


def claim(true: object, otherwise: str) -> None:
    """Failed, with what was seen, unless it is so."""
    if not true:
        raise Failed(otherwise)


def ended_well(result: pb.StepResult) -> None:
    """The attempt did what it was told."""
    outcome = result.outcome
    claim(outcome.status == act.OUTCOME_STATUS_OK, f"the step ended as {said(outcome)}, not OK")
    claim(outcome.effect == eff.EFFECT_DONE, f"the step says {said(outcome)} although its effect happened")


def refused(result: pb.StepResult, reason: str) -> None:
    """Nothing began, for this reason."""
    outcome = result.outcome
    refusal = outcome.status == act.OUTCOME_STATUS_REFUSED and outcome.reason == reason
    claim(refusal, f"the answer is {said(outcome)}, not REFUSED {reason}")


def without_effect(result: pb.StepResult) -> None:
    """It says that nothing happened."""
    claim(result.outcome.effect == eff.EFFECT_NONE, f"the answer is {said(result.outcome)}, not EFFECT_NONE")


def stands(state: pb.StepState, *wanted: pb.HeldState.ValueType) -> None:
    """The journal knows the attempt in one of these states."""
    names = " or ".join(pb.HeldState.Name(each).removeprefix("HELD_STATE_") for each in wanted)
    claim(state.state in wanted, f"the journal says {pb.HeldState.Name(state.state)}, not {names}")


def stands_at(frame: pb.ControlRequest, *wanted: pb.HeldState.ValueType) -> None:
    """The answer is a StepState of that kind, and no result."""
    names = " or ".join(pb.HeldState.Name(each).removeprefix("HELD_STATE_") for each in wanted)
    if frame.HasField("step_result"):
        raise Failed(f"the answer is a result ({said(frame.step_result.outcome)}), not StepState {names}")
    stands(frame.step_state, *wanted)


def outcome_of(frame: pb.ControlRequest) -> act.Outcome:
    """The outcome that a StepResult or a StepState brings."""
    return frame.step_result.outcome if frame.HasField("step_result") else frame.step_state.outcome


def said(outcome: act.Outcome) -> str:
    """An outcome in three words."""
    status = act.OutcomeStatus.Name(outcome.status).removeprefix("OUTCOME_STATUS_")
    return " ".join(filter(None, (status, outcome.reason, eff.Effect.Name(outcome.effect))))
