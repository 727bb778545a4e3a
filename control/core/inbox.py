"""What of a run waits for a person's word, with what is known and the commands that answer it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from control.core.budget import TOP_UP_OPTION, Shortage, shortage
from control.core.meters import MONEY, STEPS, TOKENS, WALL_TIME, meter
from control.core.moments import ms_of
from control.core.run import BUDGET_EXHAUSTED, LOG_BEHIND, WORKER_AWAY, RunFold, terminal
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1 import state_pb2 as st

_ALONE = frozenset({BUDGET_EXHAUSTED, LOG_BEHIND, WORKER_AWAY})
_MAY_RUN_AGAIN = frozenset({eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT})
_OFFERED = {STEPS: 10, MONEY: 1_000_000, TOKENS: 10_000, WALL_TIME: 600_000}
"""What is offered to be given at least: less than that would soon be used up again."""


def waits(run: api.RunSummary) -> bool:
    """Whether a list shows that something of a run may wait for a person."""
    return bool(run.waiting_for_person) or run.blocked_reason in _ALONE


def items(folded: RunFold) -> list[api.InboxItem]:
    """Everything that waits, questions first."""
    if terminal(folded.state.phase):
        return []
    found = [*_questions(folded.state), *_uncertain(folded.state), *_blocked(folded)]
    for item in found:
        item.run_id, item.mission_id = folded.state.run_id, folded.state.mission_id
        item.goal = folded.state.goal or folded.state.spec.goal
    return found


def _questions(state: st.RunState) -> Iterator[api.InboxItem]:
    for asked in state.approvals:
        if asked.state == ev.APPROVAL_STATE_PENDING:
            yield api.InboxItem(
                kind=api.INBOX_KIND_APPROVAL,
                step_id=asked.step_id,
                approval_id=asked.approval_id,
                action_digest=asked.action_digest,
                title=asked.summary,
                known="; ".join(asked.reasons),
                answers=[f"skyagent approvals {verb} {asked.approval_id}" for verb in ("approve", "deny")],
                since=asked.request_time,
                expire_time=asked.expire_time,
            )


def _uncertain(state: st.RunState) -> Iterator[api.InboxItem]:
    for record in state.nodes:
        if record.node.HasField("step") and record.state == ev.NODE_STATE_UNCERTAIN and record.attempts:
            yield _about_step(state, record, api.INBOX_KIND_UNCERTAIN_STEP, record.reason)


def _blocked(folded: RunFold) -> Iterator[api.InboxItem]:
    state = folded.state
    if state.blocked_reason == WORKER_AWAY:
        for record, attempt in folded.open_attempts():
            if attempt.effect_class not in _MAY_RUN_AGAIN:
                yield _about_step(state, record, api.INBOX_KIND_WORKER_AWAY, state.blocked_detail)
    elif state.blocked_reason == LOG_BEHIND:
        answers = [f"skyagent runs {verb} {state.run_id}" for verb in ("resume", "cancel")]
        title = "a worker knows more than this run's journal"
        yield _about_run(state, api.INBOX_KIND_LOG_BEHIND, title, answers)
    elif state.blocked_reason == BUDGET_EXHAUSTED:
        lacks = shortage(folded, ms_of(state.update_time))
        answers = _more(state, lacks) if lacks else []
        yield _about_run(state, api.INBOX_KIND_BUDGET_EXHAUSTED, "a budget is used up", answers)


def _about_step(state: st.RunState, record: st.NodeRecord, kind: api.InboxKind.ValueType, known: str) -> api.InboxItem:
    answer = f"skyagent runs resolve {state.run_id} {record.node.node_id}"
    last = record.attempts[-1]
    return api.InboxItem(
        kind=kind,
        step_id=record.node.node_id,
        title=record.node.title,
        known=known,
        answers=[f"{answer} --happened", f"{answer} --did-not-happen"],
        since=last.finish_time if last.HasField("finish_time") else last.intend_time,
    )


def _about_run(state: st.RunState, kind: api.InboxKind.ValueType, title: str, answers: list[str]) -> api.InboxItem:
    known = state.blocked_detail
    return api.InboxItem(kind=kind, title=title, known=known, answers=answers, since=state.update_time)


def _more(state: st.RunState, lacks: Shortage) -> list[str]:
    """What gives a run more: it cannot be topped up from a tenant's budget that has nothing left."""
    found = meter(state, lacks.kind) or st.Meter()
    raises = f"skyagent budgets set {lacks.kind} LIMIT"
    topped_up = [_top_up(state, lacks)] if found.from_mission or not lacks.grantable else []
    return [*topped_up, raises] if lacks.grantable and found.from_tenant else topped_up


def _top_up(state: st.RunState, lacks: Shortage) -> str:
    """The command that gives enough to go on, and a little more."""
    units = max(lacks.missing, _OFFERED[lacks.kind])
    option, _, _ = TOP_UP_OPTION[lacks.kind].partition(" ")
    shown = {MONEY: f"{-(-units // 10_000) / 100:.2f}", WALL_TIME: f"{-(-units // 60_000)}m"}.get(
        lacks.kind, str(units)
    )
    return f"skyagent runs topup {state.run_id} {option} {shown}"
