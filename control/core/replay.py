"""Sealed replay: the same decisions from the same inputs, with no network, no model and no worker. Pure.

What came from outside (results, answers, commands, verdicts of policy, which worker, ids, moments) is taken from the
record. Everything that this program decides from it (plans, what comes next, what holds, what is tried again, how it
ends) is decided again, and must be what was recorded; the first event that is not is named with both versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from control.core import verdicts
from control.core.check import Checks
from control.core.dispatch import next_move
from control.core.finish import finished, unplannable
from control.core.made import Written, files_of, named, table_written, unknown_step
from control.core.moments import ms_of
from control.core.moves import Attempt, Finish, OwnStep, Plan, Record
from control.core.outcome_table import as_csv, as_html, outcomes
from control.core.planner import Known, events_of, extend
from control.core.run import WAITING_FOR_PERSON, RunFold, outcome_in
from control.core.tables import Table
from control.core.templates import Template, template_named
from infra.digest import digest_message
from infra.errors import SkyError
from skyagent.execution.v1 import action_pb2 as act
from skyagent.policy.v1 import decision_pb2 as pol
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st

CLOCK_SLACK_MS = 1_000
"""A decision is made between the event before it and its own commit, give or take what a busy machine needs."""

_DECIDED = frozenset(
    {
        "plan_extended",
        "policy_decided",
        "step_intended",
        "step_validated",
        "step_retried",
        "group_restarted",
        "node_settled",
        "approval_requested",
        "step_uncertain",
        "artifact_recorded",
        "run_finished",
    }
)
"""Kinds of events that a run's owner decides; all others tell what came from outside."""
_RUN_IS_OVER = "the run has ended"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first event that would be another one now; `decided` is nothing when no event was due."""

    seq: int
    recorded: ev.EventBody
    decided: ev.EventBody | None
    detail: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found; `state` is as far as it came."""

    state: st.RunState
    decided: int
    taken: int
    erased: int
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class Given:
    """What a run is planned from besides its journal."""

    templates: Mapping[str, Template]
    table: Table | None


def replay(events: Sequence[ev.RunEvent], given: Given) -> Replayed:
    """Decides a run's whole journal again.

    Raises:
        IllegalEvent: the journal cannot even be folded.
    """
    run = _Replay(events, given)
    difference = run.difference()
    return Replayed(run.folded.state, run.decided, run.taken, run.erased, difference)


@dataclass(slots=True)
class _Replay:
    events: Sequence[ev.RunEvent]
    given: Given
    folded: RunFold = field(default_factory=RunFold)
    outcomes: dict[int, act.Outcome] = field(default_factory=dict[int, act.Outcome])
    at: int = 0
    decided: int = 0
    taken: int = 0
    erased: int = 0

    def difference(self) -> Difference | None:
        while self.at < len(self.events):
            event = self.events[self.at]
            if event.erased or self._came_from_outside(event.body):
                self.erased += event.erased
                self.taken += not event.erased
                self._take(1)
            elif (found := self._decide()) is not None:
                return found
        return None

    def _take(self, number: int) -> None:
        for event in self.events[self.at : self.at + number]:
            self.folded.apply(event)
            if (outcome := outcome_in(event.body)) is not None:
                self.outcomes[event.seq] = outcome
        self.at += number

    def _came_from_outside(self, body: ev.EventBody) -> bool:
        match body.WhichOneof("kind"):
            case _ if not self.folded.state.node_id:  # nobody has decided anything yet
                return True
            case "plan_extended":
                return not body.plan_extended.planner  # it was given, not made
            case "run_blocked":
                return body.run_blocked.reason != WAITING_FOR_PERSON
            case "run_unblocked":
                return not self._next_is("policy_decided")
            case "approval_decided":
                return body.approval_decided.note != _RUN_IS_OVER
            case "step_uncertain":
                return self._before_was_a_persons_word()
            case kind:
                return kind not in _DECIDED

    def _next_is(self, kind: str) -> bool:
        following = self.events[self.at + 1 : self.at + 2]
        return any(event.body.WhichOneof("kind") == kind for event in following)

    def _before_was_a_persons_word(self) -> bool:
        before = self.events[self.at - 1].body if self.at else ev.EventBody()
        return before.command_applied.command.HasField("resolve")

    def _decide(self) -> Difference | None:
        """Takes what was decided here, when it is what is decided now."""
        now_ms = ms_of(self.events[self.at].time)
        before_ms = ms_of(self.events[self.at - 1].time)
        first: Difference | None = None
        for moment in dict.fromkeys((now_ms, before_ms)):
            wanted = self._wanted(moment)
            found = self._compared(wanted)
            if found is None:
                self.decided += len(wanted)
                self._take(len(wanted))
                return None
            first = first or found
        return first

    def _compared(self, wanted: Sequence[ev.EventBody]) -> Difference | None:
        event = self.events[self.at]
        if not wanted:
            return Difference(event.seq, event.body, None, "nothing was to be decided here")
        same = _SameRun()
        for position, body in enumerate(wanted):
            if self.at + position >= len(self.events):
                last = self.events[-1]
                return Difference(last.seq, last.body, body, "the record ends in the middle of a decision")
            event = self.events[self.at + position]
            decided = same.as_recorded(body, event.body)
            if decided != event.body:
                return Difference(event.seq, event.body, decided, first_difference(event.body, decided))
        return None

    def _wanted(self, now_ms: int) -> Sequence[ev.EventBody]:
        """What is decided now in the state that the record was decided in."""
        new_id = _placeholders()
        move = next_move(self.folded, Checks(self.outcomes, new_id), now_ms)
        match move:
            case Record(events):
                return (*events, *files_of(self.folded, self.outcomes, events, new_id))
            case Attempt():
                return self._attempt(move, now_ms)
            case OwnStep(record):
                return self._own_step(record, new_id)
            case Plan():
                return self._plan(new_id)
            case Finish():
                return finished(self.folded, move)
            case _:
                return ()

    def _attempt(self, move: Attempt, now_ms: int) -> Sequence[ev.EventBody]:
        state, record = self.folded.state, move.record
        told = [event.body.policy_decided for event in self.events[self.at : self.at + 2]]
        decision = next((each.decision for each in told if each.step_id == record.node.node_id), pol.Decision())
        decided, digest = verdicts.decided(move, decision), digest_message(record.node.step.action)
        unblocked = verdicts.unblocked(state)
        if state.spec.dry_run:
            return (decided, verdicts.judged_only(record, decision))
        if decision.verdict == pol.VERDICT_ALLOW:
            approval = move.approval if move.approval and move.approval.action_digest == digest else None
            used = Attempt(record, move.number, approval)
            return (*unblocked, decided, verdicts.intended(used, digest, decided, "", ""))
        if decision.verdict == pol.VERDICT_ASK:
            expires_ms = now_ms + verdicts.ttl_ms(state, decision)
            asked = verdicts.question(self.folded, record, decision, "", expires_ms)
            return (*unblocked, decided, ev.EventBody(approval_requested=asked))
        return verdicts.denied(state, move, decision)

    def _own_step(self, record: st.NodeRecord, new_id: Callable[[], str]) -> Sequence[ev.EventBody]:
        if record.node.step.control != plan.CONTROL_STEP_OUTCOME_TABLE:
            return (unknown_step(record),)
        rows = outcomes(self.folded)
        csv = named(as_csv(rows), "text/csv; charset=utf-8")
        html = named(as_html(self.folded, rows), "text/html; charset=utf-8")
        return table_written(self._known(new_id), record, len(rows), Written(csv, html))

    def _plan(self, new_id: Callable[[], str]) -> Sequence[ev.EventBody]:
        try:
            template = template_named(self.given.templates, self.folded.state.spec.template)
            extension = extend(template.phases, self._known(new_id))
        except SkyError as error:
            return finished(self.folded, unplannable(error))
        parts = events_of(extension, f"template {template.name} {template.version}")
        return [ev.EventBody(plan_extended=part) for part in parts]

    def _known(self, new_id: Callable[[], str]) -> Known:
        inputs = {given.name: given.value for given in self.folded.state.spec.inputs}
        return Known(self.folded, inputs, self.given.table, self.outcomes, new_id)


@dataclass(slots=True)
class _SameRun:
    """Puts into a decision what it does not decide: ids, workers, and moments that are near enough."""

    ids: dict[str, str] = field(default_factory=dict[str, str])

    def as_recorded(self, decided: ev.EventBody, recorded: ev.EventBody) -> ev.EventBody:
        """The decision as the record would have it; what differs still differs."""
        same = ev.EventBody()
        same.CopyFrom(decided)
        match same.WhichOneof("kind"), recorded.WhichOneof("kind"):
            case "plan_extended", "plan_extended":
                self._nodes(same.plan_extended, recorded.plan_extended)
            case "artifact_recorded", "artifact_recorded":
                same.artifact_recorded.artifact_id = recorded.artifact_recorded.artifact_id
            case "approval_requested", "approval_requested":
                same.approval_requested.approval_id = recorded.approval_requested.approval_id
                _near(same.approval_requested.expire_time, recorded.approval_requested.expire_time)
            case "step_intended", "step_intended":
                told = recorded.step_intended
                same.step_intended.worker_id, same.step_intended.journal_id = told.worker_id, told.journal_id
            case "step_retried", "step_retried":
                _near(same.step_retried.not_before, recorded.step_retried.not_before)
            case "group_restarted", "group_restarted":
                _near(same.group_restarted.not_before, recorded.group_restarted.not_before)
            case _:
                pass
        return same

    def _nodes(self, decided: ev.PlanExtended, recorded: ev.PlanExtended) -> None:
        for mine, theirs in zip(decided.nodes, recorded.nodes, strict=False):
            self.ids[mine.node_id] = theirs.node_id
        for node in decided.nodes:
            node.node_id = self.ids.get(node.node_id, node.node_id)
            node.parent_id = self.ids.get(node.parent_id, node.parent_id)


def _near(decided: Timestamp, recorded: Timestamp) -> None:
    if abs(ms_of(decided) - ms_of(recorded)) <= CLOCK_SLACK_MS:
        decided.CopyFrom(recorded)


def _placeholders() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"new-{next(numbers)}"


def first_difference(one: Message, other: Message) -> str:
    """Where two messages of one type differ first, as a path of fields; empty when they do not."""
    for descriptor in one.DESCRIPTOR.fields:
        mine, theirs = getattr(one, descriptor.name), getattr(other, descriptor.name)
        if mine == theirs:
            continue
        below = first_difference(mine, theirs) if isinstance(mine, Message) and isinstance(theirs, Message) else ""
        return f"{descriptor.name}.{below}" if below else descriptor.name
    return ""
