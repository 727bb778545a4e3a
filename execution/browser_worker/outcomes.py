"""From what happened to what is reported: status, effect, reason. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from execution.browser_worker.stops import reason_of
from skyagent.execution.v1 import browser_pb2 as pb
from skyagent.execution.v1.action_pb2 import (
    OUTCOME_STATUS_CANCELLED,
    OUTCOME_STATUS_FAILED,
    OUTCOME_STATUS_OK,
    OUTCOME_STATUS_REFUSED,
    Action,
    BatchResult,
    Outcome,
    OutcomeStatus,
)
from skyagent.execution.v1.effect_pb2 import (
    EFFECT_CLASS_PROBEABLE,
    EFFECT_CLASS_READ,
    EFFECT_DONE,
    EFFECT_NONE,
    EFFECT_UNKNOWN,
    Effect,
    EffectClass,
)

MAX_MESSAGE = 4000


def effect_of_stop(effect_class: EffectClass.ValueType, *, dispatched: bool) -> Effect.ValueType:
    """The effect of an action that did not end as asked."""
    if effect_class == EFFECT_CLASS_READ or not dispatched:
        return EFFECT_NONE
    return EFFECT_UNKNOWN


def done(result: pb.BrowserResult, message: str) -> Outcome:
    """The outcome of an action that ended as asked."""
    result.status = pb.BROWSER_STATUS_OK
    return Outcome(status=OUTCOME_STATUS_OK, effect=EFFECT_DONE, message=message[:MAX_MESSAGE], browser=result)


def failed(
    result: pb.BrowserResult, status: pb.BrowserStatus.ValueType, message: str, effect: Effect.ValueType
) -> Outcome:
    """The outcome of an action that ended otherwise."""
    result.status = status
    return Outcome(
        status=OUTCOME_STATUS_FAILED,
        effect=effect,
        message=message[:MAX_MESSAGE],
        reason=reason_of(status),
        browser=result,
    )


def broken(result: pb.BrowserResult, reason: str, message: str, effect: Effect.ValueType) -> Outcome:
    """The outcome of an action that failed for a reason that is none of the page's."""
    return Outcome(
        status=OUTCOME_STATUS_FAILED, effect=effect, message=message[:MAX_MESSAGE], reason=reason[:64], browser=result
    )


def refused(reason: str, message: str) -> Outcome:
    """The outcome of an action that nothing was begun of."""
    return Outcome(status=OUTCOME_STATUS_REFUSED, effect=EFFECT_NONE, message=message[:MAX_MESSAGE], reason=reason)


def cancelled(effect: Effect.ValueType) -> Outcome:
    """The outcome of an action that was told to stop."""
    return Outcome(status=OUTCOME_STATUS_CANCELLED, effect=effect, message="cancelled while it ran", reason="CANCELLED")


def batch(actions: Sequence[Action], outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of a batch: that of its last action, with the effect of those that may not simply be run again."""
    last = outcomes[-1]
    status: OutcomeStatus.ValueType = last.status
    message, reason = last.message, last.reason
    if status != OUTCOME_STATUS_OK:
        message = f"action {len(outcomes)} of {len(actions)}: {last.message}"
    elif len(outcomes) < len(actions):
        status, reason = OUTCOME_STATUS_FAILED, reason_of(pb.BROWSER_STATUS_NAVIGATED)
        message = f"the page changed after action {len(outcomes)} of {len(actions)}, so the rest was not run"
    blobs = [ref for outcome in outcomes for ref in outcome.blobs]
    sessions = [outcome.session for outcome in outcomes if outcome.HasField("session")]
    return Outcome(
        status=status,
        effect=_effect_of_batch(list(zip(actions, outcomes, strict=False))),
        message=message[:MAX_MESSAGE],
        reason=reason,
        blobs=blobs,
        session=sessions[-1] if sessions else None,
        batch=BatchResult(outcomes=outcomes),
    )


def _effect_of_batch(ran: Sequence[tuple[Action, Outcome]]) -> Effect.ValueType:
    """Fields that were filled again and again matter less than the one press of "Save"."""
    careful = [outcome.effect for action, outcome in ran if action.effect_class >= EFFECT_CLASS_PROBEABLE]
    acting = [outcome.effect for action, outcome in ran if action.effect_class > EFFECT_CLASS_READ]
    if any(action.effect_class >= EFFECT_CLASS_PROBEABLE for action, _ in ran):
        return _strongest(careful)
    return _strongest(acting) if acting else _strongest(outcome.effect for _, outcome in ran)


def _strongest(effects: Iterable[Effect.ValueType]) -> Effect.ValueType:
    seen = set(effects)
    return next((effect for effect in (EFFECT_UNKNOWN, EFFECT_DONE) if effect in seen), EFFECT_NONE)
