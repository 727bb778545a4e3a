"""Where two runs part, and which of their steps ended otherwise. Pure.

Runs are compared by what happened in them: ids, moments, workers, pictures and the wording of pages differ always and
say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from control.core.moments import ms_of
from infra.digest import digest_message
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1 import state_pb2 as st


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that counts, and what it comes to when accidents are left out."""

    event: ev.RunEvent
    text: str
    content: str


@dataclass(frozen=True, slots=True)
class Parting:
    """How many happenings two runs have in common, and the first of each that the other has not."""

    common: int
    one: Happening | None
    other: Happening | None


def happenings(events: Iterable[ev.RunEvent], state: st.RunState) -> list[Happening]:
    """What happened in a run, in order; `state` is its own at the end, for the names of its steps."""
    paths = paths_of(state)
    found: list[Happening] = []
    for event in events:
        text, content = _told(event.body, paths)
        if text:
            found.append(Happening(event, text, content))
    return found


def parting(one: Sequence[Happening], other: Sequence[Happening]) -> Parting:
    """Where they part."""
    for common, (mine, theirs) in enumerate(zip_longest(one, other)):
        if mine is None or theirs is None or (mine.text, mine.content) != (theirs.text, theirs.content):
            return Parting(common, mine, theirs)
    return Parting(len(one), None, None)


def steps_that_differ(one: st.RunState, other: st.RunState) -> list[api.StepDifference]:
    """Steps that ended otherwise or that only one of them has, probes left out."""
    mine, theirs = _steps(one), _steps(other)
    found: list[api.StepDifference] = []
    for path in dict.fromkeys((*mine, *theirs)):
        record, record_there = mine.get(path), theirs.get(path)
        if record is None or record_there is None or _ended(record) != _ended(record_there):
            standing, standing_there = _standing(record, one), _standing(record_there, other)
            found.append(api.StepDifference(path=path, one=standing, other=standing_there))
    return found


def paths_of(state: st.RunState) -> Mapping[str, str]:
    """Where each node stands in the plan, in words that two runs of one mission share."""
    paths, seen = dict[str, str](), Counter[str]()
    for record in state.nodes:
        parent = record.node.parent_id
        above = f"{paths.get(parent, '')} › " if parent and parent in paths else ""
        path = f"{above}{record.node.title}"
        seen[path] += 1
        paths[record.node.node_id] = path if seen[path] == 1 else f"{path} ({seen[path]})"
    return paths


def _steps(state: st.RunState) -> dict[str, st.NodeRecord]:
    paths = paths_of(state)
    steps = (record for record in state.nodes if record.node.HasField("step") and not record.node.step.probe_of)
    return {paths[record.node.node_id]: record for record in steps}


def _standing(record: st.NodeRecord | None, state: st.RunState) -> api.StepStanding | None:
    if record is None:
        return None
    own = [attempt for attempt in record.attempts if attempt.intended_seq > state.inherited_seq]
    spent = sum(max(0, ms_of(each.finish_time) - ms_of(each.intend_time)) for each in own if each.finished_seq)
    last = record.attempts[-1].message if record.attempts else ""
    standing = api.StepStanding(
        step_id=record.node.node_id, state=record.state, outcome=record.reason or last, attempts=len(own)
    )
    standing.duration.FromMilliseconds(spent)
    return standing


def _ended(record: st.NodeRecord) -> tuple[int, ...]:
    last = record.attempts[-1] if record.attempts else st.AttemptRecord()
    return record.state, last.status, last.effect, last.holds


def _told(body: ev.EventBody, paths: Mapping[str, str]) -> tuple[str, str]:
    """What an event says in one line, and what else of it must be equal; nothing for what is an accident."""
    kind = body.WhichOneof("kind") or ""
    step = paths.get(getattr(getattr(body, kind), "step_id", ""), "") if kind else ""
    match kind:
        case "plan_extended":
            return f"planned {len(body.plan_extended.nodes)} nodes", _plan(body.plan_extended, paths)
        case "step_intended":
            return f"began {step!r}", str(body.step_intended.attempt)
        case "step_finished":
            return f"{step!r} ended as {_outcome(body.step_finished.outcome)}", ""
        case "step_validated":
            holds = plan.Holds.Name(body.step_validated.holds).removeprefix("HOLDS_")
            return f"what {step!r} claims holds: {holds}", ""
        case "step_retried":
            return f"{step!r} is tried again", body.step_retried.strategy
        case "group_restarted":
            return f"{paths.get(body.group_restarted.node_id, '')!r} starts again", ""
        case "node_settled":
            settled = body.node_settled
            state = ev.NodeState.Name(settled.state).removeprefix("NODE_STATE_")
            return f"{paths.get(settled.node_id, '')!r} is {state}", settled.signature
        case _:
            return _told_of_people(body, kind, step)


def _told_of_people(body: ev.EventBody, kind: str, step: str) -> tuple[str, str]:
    match kind:
        case "approval_requested":
            return f"a person is asked about {step!r}", body.approval_requested.summary
        case "approval_decided":
            state = ev.ApprovalState.Name(body.approval_decided.state).removeprefix("APPROVAL_STATE_")
            return f"the answer is {state}", ""
        case "command_applied":
            command = body.command_applied.command
            return f"a person said {command.WhichOneof('kind')}", digest_message(command)
        case "step_uncertain":
            return f"nobody can tell whether {step!r} happened", ""
        case "uncertainty_resolved":
            return f"{step!r}: {eff.Effect.Name(body.uncertainty_resolved.effect).removeprefix('EFFECT_')}", ""
        case "begun_elsewhere":
            return f"another run of the lineage began {step!r}", ""
        case "artifact_recorded":
            return f"made {body.artifact_recorded.name}", ""
        case "run_finished":
            finished = body.run_finished
            return f"ended as {ev.RunPhase.Name(finished.phase).removeprefix('RUN_PHASE_')}", finished.reason
        case _:
            return "", ""


def _outcome(outcome: act.Outcome) -> str:
    status = act.OutcomeStatus.Name(outcome.status).removeprefix("OUTCOME_STATUS_")
    effect = eff.Effect.Name(outcome.effect).removeprefix("EFFECT_")
    return f"{status}, effect {effect}" + (f", {outcome.reason}" if outcome.reason else "")


def _plan(extended: ev.PlanExtended, paths: Mapping[str, str]) -> str:
    """The plan with places for ids."""
    same = ev.PlanExtended()
    same.CopyFrom(extended)
    for node in same.nodes:
        node.node_id, node.parent_id = paths.get(node.node_id, ""), paths.get(node.parent_id, "")
        if node.HasField("step"):
            node.step.probe_of = paths.get(node.step.probe_of, "")
            node.step.ClearField("not_before")
    return digest_message(same)
