"""What follows a worker's report: it is believed only when the postconditions hold, and the world is asked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control.core.moments import ms_of
from control.core.retry import Failure, after_failure
from control.core.run import RunFold
from control.core.tree import ENDED
from control.core.validate import Judgement, Probed, judge, probe_for
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

DEFAULT_SETTLE_MS = 2_000

Events = tuple[ev.EventBody, ...]


@dataclass(frozen=True, slots=True)
class Checks:
    """Decides what follows an outcome.

    `outcomes` holds, by sequence number of its event, the outcome of every step that is being checked and of its
    probes. `new_id` makes the ids of probe steps.
    """

    outcomes: Mapping[int, act.Outcome]
    new_id: Callable[[], str]

    def probe(self, folded: RunFold, record: st.NodeRecord, now_ms: int) -> Events:
        """What follows a probe's own outcome: it only has to have looked."""
        outcome = self.outcomes[record.attempts[-1].finished_seq]
        if outcome.status == act.OUTCOME_STATUS_OK:
            return (_validated(record, Judgement((), plan.HOLDS_YES, absent=False)),)
        return (after_failure(folded, record, Failure.of(outcome), now_ms),)

    def step(self, folded: RunFold, record: st.NodeRecord, now_ms: int) -> Events | st.NodeRecord | None:
        """What follows a step's outcome: events, or the probe that must run first, or nothing while one runs."""
        outcome = self.outcomes[record.attempts[-1].finished_seq]
        if _nothing_happened(outcome, record.attempts[-1]):
            return (after_failure(folded, record, Failure.of(outcome), now_ms),)
        if outcome.effect == eff.EFFECT_UNKNOWN and record.attempts[-1].effect_class == eff.EFFECT_CLASS_ONCE:
            return (_uncertain(record, outcome, "only a person can tell whether it happened"),)
        return self._judged(folded, record, outcome, now_ms)

    def _judged(
        self, folded: RunFold, record: st.NodeRecord, outcome: act.Outcome, now_ms: int
    ) -> Events | st.NodeRecord | None:
        claims = record.node.step.postconditions
        probed: dict[int, Probed] = {}
        for position, claim in enumerate(claims):
            action = probe_for(claim)
            if action is None:
                continue
            latest = self._latest_probe(folded, record, action)
            if latest is None:
                return (_plan_probe(record, action, self.new_id(), _first_look(record, outcome)),)
            if latest.state not in ENDED:
                return latest if latest.state == ev.NODE_STATE_PENDING else None
            if latest.state == ev.NODE_STATE_SUCCEEDED:
                probed[position] = Probed(latest.node.node_id, self.outcomes[latest.attempts[-1].finished_seq])
        judgement = judge(claims, outcome, probed)
        if judgement.holds == plan.HOLDS_NO and judgement.absent:
            again = self._look_again(folded, record, judgement)
            if again is not None:
                return (again,)
        return _verdict(folded, record, outcome, judgement, now_ms)

    def _look_again(self, folded: RunFold, record: st.NodeRecord, judgement: Judgement) -> ev.EventBody | None:
        """Another probe, when the one that saw nothing looked before the effect had time to appear."""
        settled_ms = settle_time_ms(record)
        for finding in judgement.findings:
            if not finding.probe_step_id:
                continue
            probe = folded.node(finding.probe_step_id)
            if ms_of(probe.attempts[-1].intend_time) < settled_ms:
                return _plan_probe(record, probe.node.step.action, self.new_id(), settled_ms)
        return None

    def _latest_probe(self, folded: RunFold, record: st.NodeRecord, action: act.Action) -> st.NodeRecord | None:
        finished = record.attempts[-1].finished_seq
        mine = [
            probe
            for probe in folded.probes(record.node.node_id)
            if probe.planned_seq > finished and probe.node.step.action == action
        ]
        return mine[-1] if mine else None


def settle_time_ms(record: st.NodeRecord) -> int:
    """From when on a probe that sees nothing proves that nothing happened."""
    settle = record.node.step.settle
    ms = settle.seconds * 1000 + settle.nanos // 1_000_000
    return ms_of(record.attempts[-1].finish_time) + (ms or DEFAULT_SETTLE_MS)


def _nothing_happened(outcome: act.Outcome, attempt: st.AttemptRecord) -> bool:
    """Whether trying again cannot do anything twice."""
    harmless = attempt.effect_class in (eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT)
    return outcome.status != act.OUTCOME_STATUS_OK and (harmless or outcome.effect == eff.EFFECT_NONE)


def _first_look(record: st.NodeRecord, outcome: act.Outcome) -> int:
    """When to look first: at once after an answer, after the settle time when none came."""
    return 0 if outcome.status == act.OUTCOME_STATUS_OK else settle_time_ms(record)


def _verdict(folded: RunFold, record: st.NodeRecord, outcome: act.Outcome, judgement: Judgement, now_ms: int) -> Events:
    validated = _validated(record, judgement)
    if judgement.holds == plan.HOLDS_YES:
        return (validated,)
    harmless = record.attempts[-1].effect_class in (eff.EFFECT_CLASS_READ, eff.EFFECT_CLASS_IDEMPOTENT)
    if judgement.holds == plan.HOLDS_UNKNOWN and not harmless:
        return (validated, _uncertain(record, outcome, "the application could not be asked"))
    detail = "; ".join(f.detail for f in judgement.findings if f.holds != plan.HOLDS_YES) or outcome.message
    repeatable = harmless or (judgement.absent and record.attempts[-1].effect_class == eff.EFFECT_CLASS_PROBEABLE)
    failure = Failure(_signature(outcome, judgement), detail, page_is_gone=True, hopeless=not repeatable)
    return (validated, after_failure(folded, record, failure, now_ms))


def _signature(outcome: act.Outcome, judgement: Judgement) -> str:
    if judgement.holds == plan.HOLDS_UNKNOWN:
        return "UNVERIFIED"
    return "FALSE_SUCCESS" if outcome.status == act.OUTCOME_STATUS_OK else "NO_EFFECT"


def _validated(record: st.NodeRecord, judgement: Judgement) -> ev.EventBody:
    number = len(record.attempts)
    event = ev.StepValidated(step_id=record.node.node_id, attempt=number, holds=judgement.holds)
    event.findings.extend(judgement.findings)
    return ev.EventBody(step_validated=event)


def _uncertain(record: st.NodeRecord, outcome: act.Outcome, why: str) -> ev.EventBody:
    known = f"{record.node.title!r} on {record.attempts[-1].worker_id}: {outcome.message or 'no outcome'}; {why}"
    event = ev.StepUncertain(step_id=record.node.node_id, attempt=len(record.attempts), known=known)
    return ev.EventBody(step_uncertain=event)


def _plan_probe(record: st.NodeRecord, action: act.Action, node_id: str, not_before_ms: int) -> ev.EventBody:
    step = plan.Step(action=action, probe_of=record.node.node_id)
    if not_before_ms:
        step.not_before.FromMilliseconds(not_before_ms)
    node = plan.PlanNode(node_id=node_id, parent_id=record.node.parent_id, title="Ask the application again", step=step)
    reason = f"whether {record.node.title!r} is true is asked of the application, not of its answer"
    return ev.EventBody(plan_extended=ev.PlanExtended(nodes=[node], reason=reason, planner="validator"))
