"""Between the journal's records and the protocol's messages, and the outcomes that the worker itself states."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import Message

from execution.attempts import AttemptKey, Fence, Record, State
from infra.errors import InvalidArgument
from infra.validation import check
from skyagent.execution.v1 import action_pb2, effect_pb2
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action, Outcome

# A Control frame may be 4 MiB; an outcome above this can never be sent, so it is not journalled either.
MAX_OUTCOME_BYTES = 3 * 1024 * 1024

_KNOWN_EFFECTS = (effect_pb2.EFFECT_NONE, effect_pb2.EFFECT_DONE, effect_pb2.EFFECT_UNKNOWN)

_HELD = {
    State.BEGUN: pb.HELD_STATE_RUNNING,
    State.DONE: pb.HELD_STATE_DONE,
    State.LOST: pb.HELD_STATE_LOST,
    State.TOMBSTONE: pb.HELD_STATE_TOMBSTONE,
    State.RELEASED: pb.HELD_STATE_RELEASED,
}


def key_of(key: pb.StepKey) -> AttemptKey:
    """The journal's part of a StepKey."""
    return AttemptKey(key.run_id, key.step_id, key.attempt)


def fence_of(key: pb.StepKey) -> Fence:
    """The other part: the right of who asks."""
    return Fence(key.fence.log_generation, key.fence.epoch)


def step_key(key: AttemptKey, fence: Fence) -> pb.StepKey:
    """Both parts together."""
    return pb.StepKey(
        run_id=key.run_id,
        step_id=key.step_id,
        attempt=key.attempt,
        fence=pb.Fence(log_generation=fence.log_generation, epoch=fence.epoch),
    )


def held_step(record: Record) -> pb.HeldStep:
    """A line of Hello."""
    return pb.HeldStep(
        key=step_key(record.key, record.fence), state=_HELD[record.state], action_digest=record.action_digest
    )


def step_state(record: Record) -> pb.StepState:
    """The answer to Inspect for a known key."""
    state = pb.StepState(key=step_key(record.key, record.fence), state=_HELD[record.state])
    if record.state in (State.DONE, State.LOST, State.TOMBSTONE):
        state.outcome.CopyFrom(outcome_of(record))
    return state


def step_result(record: Record) -> pb.StepResult:
    """The report of an attempt that ended and is not released."""
    return pb.StepResult(
        key=step_key(record.key, record.fence), outcome=outcome_of(record), action_digest=record.action_digest
    )


def outcome_of(record: Record) -> Outcome:
    """The journalled outcome; for a lost attempt, all that is known."""
    if record.outcome is not None:
        return Outcome.FromString(record.outcome)
    return timed(
        Outcome(
            status=action_pb2.OUTCOME_STATUS_LOST,
            effect=unknown_effect(record.effect_class),
            reason="WORKER_DIED",
            message="the worker died after this had begun; whether it took effect is not known to the worker",
        ),
        record.begun_ms,
        record.done_ms or record.begun_ms,
    )


def unknown_effect(effect_class: int) -> effect_pb2.Effect.ValueType:
    """What can be said of an attempt that began and did not report: reading changes nothing in any case."""
    return effect_pb2.EFFECT_NONE if effect_class == effect_pb2.EFFECT_CLASS_READ else effect_pb2.EFFECT_UNKNOWN


def refused(reason: str, message: str) -> Outcome:
    """Nothing began, and nothing will."""
    return Outcome(
        status=action_pb2.OUTCOME_STATUS_REFUSED, effect=effect_pb2.EFFECT_NONE, reason=reason, message=message
    )


def cancelled(effect: effect_pb2.Effect.ValueType, reason: str) -> Outcome:
    """Somebody wanted its end; `effect` is what is known to have happened until then."""
    message = f"cancelled: {reason}" if reason else "cancelled"
    return Outcome(status=action_pb2.OUTCOME_STATUS_CANCELLED, effect=effect, reason="CANCELLED", message=message)


def failed(effect: effect_pb2.Effect.ValueType, reason: str, message: str) -> Outcome:
    """It ended otherwise than asked."""
    return Outcome(status=action_pb2.OUTCOME_STATUS_FAILED, effect=effect, reason=reason, message=message)


def other_action(effect: effect_pb2.Effect.ValueType, known: str, asked: str) -> Outcome:
    """The answer to an Assign whose key is known with another action; `effect` is of what the key is known for."""
    outcome = refused("DIGEST_MISMATCH", f"this attempt is known with action {known}, not {asked}")
    outcome.effect = effect
    return outcome


def known_effect(record: Record) -> effect_pb2.Effect.ValueType:
    """What the journal can say at once of an attempt's effect."""
    return effect_pb2.EFFECT_NONE if record.state is State.TOMBSTONE else effect_pb2.EFFECT_UNKNOWN


def timed(outcome: Outcome, start_ms: int, end_ms: int) -> Outcome:
    """The outcome with the times that it does not state itself."""
    if not outcome.HasField("start_time"):
        outcome.start_time.FromMilliseconds(start_ms)
    if not outcome.HasField("end_time"):
        outcome.end_time.FromMilliseconds(end_ms)
    return outcome


def sealed(outcome: Outcome, effect_class: int) -> Outcome:
    """The outcome as it can be journalled and sent; one that no control plane would accept becomes a failure.

    Otherwise it would be sent, refused and sent again for ever.
    """
    if outcome.effect not in _KNOWN_EFFECTS:
        done = outcome.status == action_pb2.OUTCOME_STATUS_OK and effect_class != effect_pb2.EFFECT_CLASS_READ
        outcome.effect = effect_pb2.EFFECT_DONE if done else unknown_effect(effect_class)
    if outcome.status == action_pb2.OUTCOME_STATUS_UNSPECIFIED:
        return failed(outcome.effect, "INVALID_RESULT", "the worker did not say how the action ended")
    if outcome.ByteSize() > MAX_OUTCOME_BYTES:
        fault = (
            f"the result has {outcome.ByteSize()} bytes, above {MAX_OUTCOME_BYTES}: large content belongs into blobs"
        )
        return failed(outcome.effect, "RESULT_TOO_LARGE", fault)
    outcome.message = outcome.message[:4096]
    if fault := fault_of(outcome):
        return failed(outcome.effect, "INVALID_RESULT", f"the worker's result is not valid: {fault}"[:4096])
    return outcome


def fault_of(message: Message) -> str | None:
    """What is wrong with a message by its own contract."""
    try:
        check(message)
    except InvalidArgument as invalid:
        return invalid.message
    return None


def action_names(action: Action) -> Iterator[str]:
    """What a worker must be able to do for it, for instance "browser.click"; each once for each part of a batch."""
    match action.WhichOneof("kind"):
        case "browser":
            yield f"browser.{action.browser.WhichOneof('action')}"
        case "desktop":
            yield f"desktop.{action.desktop.WhichOneof('action')}"
        case "workspace":
            yield f"workspace.{action.workspace.WhichOneof('action')}"
        case "batch":
            for part in action.batch.actions:
                yield from action_names(part)
        case kind:
            yield str(kind)


def session_of(run_id: str, action: Action) -> str | None:
    """What the action needs for itself alone: the steps of one session run one at a time. None: nothing."""
    match action.WhichOneof("kind"):
        case "browser":
            return f"browser/{run_id}/{action.browser.session_id}"
        case "desktop":
            return f"desktop/{run_id}/{action.desktop.session_id}"
        case "workspace":
            return f"workspace/{run_id}"
        case "batch":
            return session_of(run_id, action.batch.actions[0]) if action.batch.actions else None
        case _:
            return None
