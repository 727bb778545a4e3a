"""What a person's command becomes in the journal."""

from __future__ import annotations

from collections.abc import Sequence

from control.core.meters import draws, meter
from control.core.run import LOG_BEHIND, WORKER_AWAY, RunFold
from control.core.steering import answer
from control.journal import ApprovalDecision, ApprovalStatus, CommandTooNew, StoredCommand
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev

DEFAULT_GRACE_MS = 5_000

_STATES = {
    ApprovalStatus.GRANTED: ev.APPROVAL_STATE_GRANTED,
    ApprovalStatus.DENIED: ev.APPROVAL_STATE_DENIED,
    ApprovalStatus.EXPIRED: ev.APPROVAL_STATE_EXPIRED,
}


def command_of(stored: StoredCommand) -> cmd.Command:
    """What a person said. Raises CommandTooNew for a kind that only a newer version knows."""
    command = cmd.Command.FromString(stored.payload)
    if command.WhichOneof("kind") is None and stored.decision is None:
        raise CommandTooNew(stored.run_id, stored.cmd_id, stored.kind)
    return command


def events_of(stored: StoredCommand, folded: RunFold) -> Sequence[ev.EventBody]:
    """The events that apply a command, CommandApplied first."""
    command = command_of(stored)
    applied = ev.CommandApplied(command_id=stored.cmd_id, actor=stored.actor, command=command)
    events = [ev.EventBody(command_applied=applied)]
    if stored.decision is not None:
        events.append(_decided(stored.decision, stored.actor))
    if command.HasField("resume") and folded.state.blocked_reason == LOG_BEHIND:
        events.append(ev.EventBody(run_unblocked=ev.RunUnblocked(reason=LOG_BEHIND)))
    if command.HasField("budget"):
        events += _topped_up(command.budget, folded)
    if command.HasField("steer"):
        events += _steered(command.steer, stored, folded)
    if command.HasField("resolve"):
        events += _resolved(command.resolve, stored.actor, folded)
    return events


def _decided(decision: ApprovalDecision, actor: str) -> ev.EventBody:
    state = _STATES[decision.status]
    by = actor if state != ev.APPROVAL_STATE_EXPIRED else ""
    decided = ev.ApprovalDecided(approval_id=decision.approval_id, state=state, actor=by, note=decision.note)
    return ev.EventBody(approval_decided=decided)


def _steered(steer: cmd.SteerCommand, stored: StoredCommand, folded: RunFold) -> list[ev.EventBody]:
    """The changed goal, and what the planner makes of what was said."""
    said = answer(folded.state.spec)
    changed = ev.GoalChanged(goal=steer.goal, actor=stored.actor, command_id=stored.cmd_id)
    answered = ev.SteeringAnswered(command_id=stored.cmd_id, heeded=said.heeded, note=said.note)
    events = [ev.EventBody(goal_changed=changed)] if steer.goal.strip() else []
    return [*events, ev.EventBody(steering_answered=answered)]


def _topped_up(budget: cmd.BudgetCommand, folded: RunFold) -> list[ev.EventBody]:
    """The grant that came with a top-up, where the run draws from budgets and has not heard of it yet."""
    if not draws(meter(folded.state, budget.kind)) or budget.grant_id in folded.state.grant_ids:
        return []
    grant = ev.BudgetGranted(grant_id=budget.grant_id, kind=budget.kind, amount=budget.amount, top_up=True)
    return [ev.EventBody(budget_granted=grant)]


def cancel_by_ms(command: cmd.Command, given_ms: int) -> int:
    """The moment until which open steps may end by themselves, when the command is a cancellation; else 0."""
    if not command.HasField("cancel"):
        return 0
    return given_ms + (command.cancel.grace.ToMilliseconds() or DEFAULT_GRACE_MS)


def _resolved(resolve: cmd.ResolveCommand, actor: str, folded: RunFold) -> list[ev.EventBody]:
    """A person's word on an uncertain step, or on one whose worker is away; nothing when it is settled already.

    While its worker is there, the worker's own word is waited for.
    """
    attempt = folded.last_attempt(resolve.step_id)
    if attempt is None:
        return []
    answer = _answer(resolve, actor, attempt.attempt)
    if attempt.open and folded.state.blocked_reason == WORKER_AWAY:
        known = "the person answered while the worker that may have begun it was away"
        uncertain = ev.StepUncertain(step_id=resolve.step_id, attempt=attempt.attempt, known=known)
        return [ev.EventBody(step_uncertain=uncertain), answer]
    return [answer] if folded.node(resolve.step_id).state == ev.NODE_STATE_UNCERTAIN else []


def _answer(resolve: cmd.ResolveCommand, actor: str, attempt: int) -> ev.EventBody:
    effect = eff.EFFECT_DONE if resolve.effect == eff.EFFECT_DONE else eff.EFFECT_NONE
    answer = ev.UncertaintyResolved(step_id=resolve.step_id, attempt=attempt, effect=effect, source="person")
    answer.actor, answer.note = actor, resolve.note
    return ev.EventBody(uncertainty_resolved=answer)
