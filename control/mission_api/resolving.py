"""A person's word on what nobody else can know: whether a step happened. The first word counts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass
from typing import NoReturn

from google.protobuf.timestamp_pb2 import Timestamp

from control.journal import Journal, StoredCommand
from control.journal.folding import event_of, folded_run
from control.mission_api.runs import Runs
from infra.auth import Caller
from infra.errors import NotFound, Precondition
from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st
from skyagent.run.v1.run_service_pb2 import RunSummary

_RESOLVABLE = frozenset({ev.NODE_STATE_UNCERTAIN, ev.NODE_STATE_RUNNING})
_PAGE = 1000
KIND = "RESOLVE"


@dataclass(frozen=True, slots=True)
class Resolving:
    """Takes answers about uncertain steps."""

    journal: Journal
    runs: Runs

    async def resolve(self, run_id: str, resolve: cmd.ResolveCommand, who: Caller, request_id: str) -> RunSummary:
        """Durable when it returns; the same request again is the same answer.

        Raises:
            NotFound: no such run or step.
            Precondition: STEP_NOT_UNCERTAIN, or STEP_ALREADY_ANSWERED with whose word counts and when it was given.
        """
        state = (await folded_run(self.journal, run_id, tenant=who.tenant)).folded.state
        before = await self.journal.commands(run_id, kind=KIND)
        command = cmd.Command(resolve=resolve)
        if any(stored.cmd_id == request_id for stored in before):
            return await self.runs.command(run_id, command, who, request_id)
        await self._require_open(state, resolve.step_id)
        self._require_first(before, resolve.step_id, state.seq)
        request_id = request_id or self.runs.ids.uuid()
        summary = await self.runs.command(run_id, command, who, request_id)
        given = await self.journal.commands(run_id, kind=KIND)
        mine = next(stored.control_gen for stored in given if stored.cmd_id == request_id)
        earlier = [stored for stored in given if stored.control_gen < mine]
        self._require_first(earlier, resolve.step_id, state.seq)
        return summary

    async def _require_open(self, state: st.RunState, step_id: str) -> None:
        record = next((node for node in state.nodes if node.node.node_id == step_id), None)
        if record is None:
            told = f"run {state.run_id} has no step {step_id!r}"
            raise NotFound("STEP_NOT_FOUND", told, run_id=state.run_id, step_id=step_id)
        if record.state in _RESOLVABLE:
            return
        async for event in self._answers(state.run_id):
            answered = event.body.uncertainty_resolved
            if answered.step_id == step_id and answered.attempt == len(record.attempts):
                _answered_before(step_id, answered.actor or answered.source, event.time, answered.effect)
        standing = ev.NodeState.Name(record.state).removeprefix("NODE_STATE_")
        raise Precondition(
            "STEP_NOT_UNCERTAIN", f"step {step_id} is {standing}: only what nobody can tell is settled by a person"
        )

    async def _answers(self, run_id: str) -> AsyncGenerator[ev.RunEvent]:
        seq = 0
        while page := await self.journal.read(run_id, after_seq=seq, limit=_PAGE):
            seq = page[-1].seq
            for stored in page:
                if stored.kind == ev.EventBody.UNCERTAINTY_RESOLVED_FIELD_NUMBER:
                    yield event_of(stored)

    def _require_first(self, others: Iterable[StoredCommand], step_id: str, seen: int) -> None:
        """Of words that were given while the step was uncertain, as it was at event `seen`, the first counts."""
        for other in others:
            said = cmd.Command.FromString(other.payload).resolve
            if said.step_id == step_id and (other.applied_seq is None or other.applied_seq > seen):
                given = Timestamp()
                given.FromMilliseconds(other.created_ms)
                _answered_before(step_id, other.actor, given, said.effect)


def _answered_before(step_id: str, actor: str, given: Timestamp, effect: eff.Effect.ValueType) -> NoReturn:
    word = "happened" if effect == eff.EFFECT_DONE else "did not happen"
    when = given.ToJsonString()
    raise Precondition(
        "STEP_ALREADY_ANSWERED",
        f"{actor} said at {when} that step {step_id} {word}; the first word counts",
        step_id=step_id,
        decided_by=actor,
        decided_at=when,
    )
