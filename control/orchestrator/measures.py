"""What is counted of runs: from the events that were committed, so that it says what the journal says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from control.core.moments import ms_of
from control.core.run import WORKER_AWAY, RunFold
from control.orchestrator.links import WorkerLinks
from infra.metrics import NO_METRICS, Counter, Metrics, Reading
from infra.metrics import catalogue as known
from infra.metrics.series import Buckets, Count
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st

TAKEN_OVER = "restarted"
"""The cause of an owner that follows another."""


@dataclass(slots=True)
class Measures:
    """The series of the runs that this node drives. The values of each label are those of an enum of the contracts."""

    metrics: Metrics = NO_METRICS
    _counts: dict[tuple[object, ...], Count] = field(default_factory=dict[tuple[object, ...], Count])
    _durations: dict[str, Buckets] = field(default_factory=dict[str, Buckets])

    def committed(self, folded: RunFold, events: Iterable[ev.EventBody]) -> None:
        """These events of a run are durable and folded."""
        if self.metrics is NO_METRICS:
            return
        for body in events:
            self._of_step(folded, body)
            self._of_run(body)

    def _of_step(self, folded: RunFold, body: ev.EventBody) -> None:
        match body.WhichOneof("kind"):
            case "step_intended":
                self._intended(folded, body.step_intended)
            case "step_finished":
                self._finished(folded, body.step_finished)
            case "step_uncertain":
                self._count(known.STEPS_UNCERTAIN).add()
            case _:
                pass

    def _of_run(self, body: ev.EventBody) -> None:
        match body.WhichOneof("kind"):
            case "approval_decided":
                outcome = _said(ev.ApprovalState.Name(body.approval_decided.state), "APPROVAL_STATE_")
                self._count(known.APPROVALS_DECIDED, outcome).add()
            case "run_blocked":
                self._count(known.RUNS_BLOCKED, body.run_blocked.reason).add()
            case "budget_granted":
                self._count(known.BUDGET_GRANTED, body.budget_granted.kind).add(body.budget_granted.amount)
            case "owner_changed" if body.owner_changed.cause == TAKEN_OVER:
                self._count(known.TAKEOVERS).add()
            case "run_finished":
                phase = _said(ev.RunPhase.Name(body.run_finished.phase), "RUN_PHASE_")
                self._count(known.RUNS_FINISHED, phase).add()
            case _:
                pass

    def renewed(self, leases: int) -> None:
        """A heartbeat renewed so many leases."""
        if leases:
            self._count(known.LEASES_RENEWED).add(leases)

    def broken(self) -> None:
        """The driver of a run broke."""
        self._count(known.RUNS_BROKEN).add()

    def _count(self, spec: Counter, *labels: str) -> Count:
        found = self._counts.get((spec, *labels))
        if found is None:
            found = self._counts[spec, *labels] = self.metrics.count(spec, *labels)
        return found

    def _intended(self, folded: RunFold, intended: ev.StepIntended) -> None:
        kind = _kind(folded.node(intended.step_id))
        self._count(known.STEPS_INTENDED, kind, _class(intended.effect_class)).add()

    def _finished(self, folded: RunFold, finished: ev.StepFinished) -> None:
        attempt = folded.attempt(finished.step_id, finished.attempt)
        if attempt is None:
            return
        kind, effect_class = _kind(folded.node(finished.step_id)), _class(attempt.effect_class)
        status = finished.outcome.status
        self._count(known.STEPS_FINISHED, kind, effect_class, _said(act.OutcomeStatus.Name(status))).add()
        if status == act.OUTCOME_STATUS_LOST:
            self._count(known.ATTEMPTS_LOST, effect_class).add()
            if finished.outcome.reason == WORKER_AWAY:
                self._count(known.LEASES_EXPIRED).add()
        durations = self._durations.get(kind)
        if durations is None:
            durations = self._durations[kind] = self.metrics.buckets(known.STEP_DURATION, kind)
        durations.observe(max(0, ms_of(attempt.finish_time) - ms_of(attempt.intend_time)) / 1000)


def read_workers(links: WorkerLinks) -> Sequence[Reading]:
    """Who is there, how much they would still take, and who waits for them."""
    readings = [Reading(known.WORKERS, count, (kind,)) for kind, count in links.kinds().items()]
    readings += [
        Reading(known.WORKER_CREDITS, link.credits, (link.kind,)) for link in links.by_id.values() if not link.leaving
    ]
    return [*readings, *(Reading(known.WORKERS_WANTED, count, (kind,)) for kind, count in links.wanted().items())]


def read_runs(states: Collection[st.RunState]) -> Sequence[Reading]:
    """What this node drives."""
    uncertain = sum(state.counts.uncertain for state in states)
    return (Reading(known.RUNS_OWNED, len(states)), Reading(known.STEPS_UNCERTAIN_OPEN, uncertain))


def _kind(record: st.NodeRecord) -> str:
    return record.node.step.action.WhichOneof("kind") or "none"


def _class(effect_class: eff.EffectClass.ValueType) -> str:
    return _said(eff.EffectClass.Name(effect_class), "EFFECT_CLASS_")


def _said(name: str, prefix: str = "OUTCOME_STATUS_") -> str:
    """A value of an enum as a label says it."""
    return name.removeprefix(prefix).lower()
