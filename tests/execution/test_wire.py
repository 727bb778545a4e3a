"""What the worker itself says of an attempt: outcomes that a control plane takes, and nothing that is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from execution import wire
from execution.attempts import AttemptKey, Fence, Record, State
from infra.clock import ManualClock
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.execution.v1 import desktop_pb2 as dt
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import tool_pb2 as tl
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1 import workspace_pb2 as ws
from tests.execution.control_plane import ulid

READ, IDEMPOTENT = eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT
PROBEABLE, ONCE = eff.EFFECT_CLASS_PROBEABLE, eff.EFFECT_CLASS_ONCE
CLASSES = (READ, IDEMPOTENT, PROBEABLE, ONCE)
NOW = ManualClock().now_ms()
DIGEST = "b3:" + "1" * 64
OUTCOME = wire.timed(
    act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, message="as it was"), NOW, NOW + 5
)
RECORD = Record(
    AttemptKey(ulid(1), ulid(2), 3),
    Fence(4, 5),
    "b3:" + "1" * 64,
    ONCE,
    State.DONE,
    OUTCOME.SerializeToString(),
    NOW,
    NOW,
)


def sealed(outcome: act.Outcome, effect_class: int = ONCE) -> act.Outcome:
    return wire.sealed(outcome, effect_class)


def test_a_key_and_a_fence_come_back_as_they_were_sent() -> None:
    sent = wire.step_key(RECORD.key, RECORD.fence)
    assert (wire.key_of(sent), wire.fence_of(sent)) == (RECORD.key, RECORD.fence)


@pytest.mark.parametrize(
    ("state", "held", "has_outcome"),
    [
        (State.BEGUN, pb.HELD_STATE_RUNNING, False),
        (State.DONE, pb.HELD_STATE_DONE, True),
        (State.LOST, pb.HELD_STATE_LOST, True),
        (State.TOMBSTONE, pb.HELD_STATE_TOMBSTONE, True),
        (State.RELEASED, pb.HELD_STATE_RELEASED, False),
    ],
)
def test_the_state_of_an_attempt_is_told_with_its_outcome_when_it_has_one(
    state: State,
    held: pb.HeldState.ValueType,
    has_outcome: bool,  # noqa: FBT001 -- a column of the table
) -> None:
    record = replace(RECORD, state=state)
    told = wire.step_state(record)
    assert (told.state, told.HasField("outcome")) == (held, has_outcome)
    assert told.key == wire.step_key(record.key, record.fence)
    line = wire.held_step(record)
    assert (line.state, line.action_digest, line.key) == (held, record.action_digest, told.key)


def test_a_result_is_the_journalled_outcome_of_that_action() -> None:
    result = wire.step_result(RECORD)
    assert (result.outcome, result.action_digest) == (OUTCOME, RECORD.action_digest)
    assert result.key == wire.step_key(RECORD.key, RECORD.fence)


@pytest.mark.parametrize("effect_class", CLASSES)
def test_of_a_lost_attempt_only_reading_is_known_to_have_changed_nothing(effect_class: int) -> None:
    lost = wire.outcome_of(replace(RECORD, state=State.LOST, outcome=None, effect_class=effect_class, done_ms=NOW + 9))
    assert (lost.status, lost.reason) == (act.OUTCOME_STATUS_LOST, "WORKER_DIED")
    assert lost.effect == (eff.EFFECT_NONE if effect_class == READ else eff.EFFECT_UNKNOWN)
    assert (lost.start_time.ToMilliseconds(), lost.end_time.ToMilliseconds()) == (NOW, NOW + 9)


def test_a_lost_attempt_ended_at_the_earliest_when_it_began() -> None:
    lost = wire.outcome_of(replace(RECORD, outcome=None, done_ms=None))
    assert lost.end_time.ToMilliseconds() == NOW


def test_an_outcome_keeps_the_times_that_it_states_itself() -> None:
    kept = wire.timed(act.Outcome.FromString(OUTCOME.SerializeToString()), 1, 2)
    assert (kept.start_time.ToMilliseconds(), kept.end_time.ToMilliseconds()) == (NOW, NOW + 5)


def test_the_worker_states_what_did_not_begin_what_was_stopped_and_what_failed() -> None:
    refused = wire.refused("DRAINING", "no more")
    assert (refused.status, refused.effect, refused.reason) == (act.OUTCOME_STATUS_REFUSED, eff.EFFECT_NONE, "DRAINING")
    stopped = wire.cancelled(eff.EFFECT_UNKNOWN, "by Ann")
    assert (stopped.status, stopped.effect, stopped.reason) == (
        act.OUTCOME_STATUS_CANCELLED,
        eff.EFFECT_UNKNOWN,
        "CANCELLED",
    )
    assert [stopped.message, wire.cancelled(eff.EFFECT_NONE, "").message] == ["cancelled: by Ann", "cancelled"]
    failed = wire.failed(eff.EFFECT_DONE, "WORKER_ERROR", "why")
    assert (failed.status, failed.effect, failed.reason, failed.message) == (
        act.OUTCOME_STATUS_FAILED,
        eff.EFFECT_DONE,
        "WORKER_ERROR",
        "why",
    )


def test_a_key_that_is_known_with_another_action_is_refused_with_the_effect_of_that_one() -> None:
    other = wire.other_action(eff.EFFECT_UNKNOWN, "b3:known", "b3:asked")
    assert (other.status, other.effect, other.reason) == (
        act.OUTCOME_STATUS_REFUSED,
        eff.EFFECT_UNKNOWN,
        "DIGEST_MISMATCH",
    )
    states = {state: wire.known_effect(replace(RECORD, state=state)) for state in State}
    assert states == dict.fromkeys(State, eff.EFFECT_UNKNOWN) | {State.TOMBSTONE: eff.EFFECT_NONE}


@pytest.mark.parametrize("effect_class", CLASSES)
@pytest.mark.parametrize("status", [act.OUTCOME_STATUS_OK, act.OUTCOME_STATUS_FAILED])
def test_an_effect_that_an_executor_does_not_state_is_the_most_that_can_be_true(
    effect_class: int, status: act.OutcomeStatus.ValueType
) -> None:
    told = sealed(act.Outcome(status=status), effect_class).effect
    if effect_class == READ:
        assert told == eff.EFFECT_NONE
    else:
        assert told == (eff.EFFECT_DONE if status == act.OUTCOME_STATUS_OK else eff.EFFECT_UNKNOWN)


@pytest.mark.parametrize("effect", [eff.EFFECT_NONE, eff.EFFECT_DONE, eff.EFFECT_UNKNOWN])
def test_an_effect_that_an_executor_states_is_believed(effect: eff.Effect.ValueType) -> None:
    assert sealed(act.Outcome(status=act.OUTCOME_STATUS_FAILED, effect=effect)).effect == effect


def test_an_outcome_without_a_status_is_a_failure_with_its_effect() -> None:
    told = sealed(act.Outcome(effect=eff.EFFECT_DONE))
    assert (told.status, told.reason, told.effect) == (act.OUTCOME_STATUS_FAILED, "INVALID_RESULT", eff.EFFECT_DONE)


def test_a_long_message_is_cut_to_what_the_contract_takes() -> None:
    told = sealed(act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, message="x" * 9000))
    assert (told.status, told.message) == (act.OUTCOME_STATUS_OK, "x" * 4096)


def test_an_outcome_at_the_bound_is_taken_and_one_above_it_is_a_failure() -> None:
    def sized(over: int) -> act.Outcome:
        outcome = act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE)
        observed = outcome.browser.observation
        observed.text = "x" * (wire.MAX_OUTCOME_BYTES - 100)
        observed.text += "x" * (wire.MAX_OUTCOME_BYTES - outcome.ByteSize() + over)
        assert outcome.ByteSize() == wire.MAX_OUTCOME_BYTES + over
        return outcome

    assert sealed(sized(0)).reason != "RESULT_TOO_LARGE"
    told = sealed(sized(1))
    assert (told.status, told.reason, told.effect) == (act.OUTCOME_STATUS_FAILED, "RESULT_TOO_LARGE", eff.EFFECT_DONE)


def test_an_outcome_that_breaks_the_contract_is_a_failure_that_says_where() -> None:
    told = sealed(act.Outcome(status=act.OUTCOME_STATUS_OK, effect=eff.EFFECT_DONE, reason="x" * 5000))
    assert (told.status, told.reason, told.effect) == (act.OUTCOME_STATUS_FAILED, "INVALID_RESULT", eff.EFFECT_DONE)
    assert "reason" in told.message


BROWSER = act.Action(browser=br.BrowserAction(session_id="s", click=br.ClickAction()))
DESKTOP = act.Action(desktop=dt.DesktopAction(session_id="d", launch=dt.LaunchAction()))
WORKSPACE = act.Action(workspace=ws.WorkspaceAction(read_file=ws.ReadFileAction(path="a")))
TOOL = act.Action(tool=tl.ToolAction(tool="mail"))
NOOP = act.Action(noop=act.NoopAction())


def batch(*actions: act.Action) -> act.Action:
    return act.Action(batch=act.ActionBatch(actions=actions))


@pytest.mark.parametrize(
    ("action", "names"),
    [
        (BROWSER, ["browser.click"]),
        (DESKTOP, ["desktop.launch"]),
        (WORKSPACE, ["workspace.read_file"]),
        (TOOL, ["tool"]),
        (NOOP, ["noop"]),
        (batch(NOOP, batch(BROWSER, NOOP)), ["noop", "browser.click", "noop"]),
        (act.Action(), ["None"]),
    ],
)
def test_an_action_is_named_by_what_a_worker_must_be_able_to_do(action: act.Action, names: list[str]) -> None:
    assert list(wire.action_names(action)) == names


@pytest.mark.parametrize(
    ("action", "session"),
    [
        (BROWSER, "browser/R/s"),
        (DESKTOP, "desktop/R/d"),
        (WORKSPACE, "workspace/R"),
        (batch(DESKTOP, BROWSER), "desktop/R/d"),
        (batch(), None),
        (TOOL, None),
        (NOOP, None),
    ],
)
def test_steps_of_one_session_share_what_keeps_them_apart(action: act.Action, session: str | None) -> None:
    assert wire.session_of("R", action) == session
