"""Forking a run: a new run of the same mission that begins with what another one knew at an event."""

from __future__ import annotations

from dataclasses import dataclass, field

from control.core.fork import Inheritance, Parent, inherit, planned_later, planned_on
from control.core.lineage import begun_in
from control.core.phases import PHASES
from control.core.run import FOLD_VERSION, RunFold, outcome_in, terminal
from control.core.templates import template_named
from control.journal import Command, EventDraft, ForkPoint, IdReused, Journal, NewRun, RunHead, StoredEvent
from control.journal.folding import event_of, folded_run, hash_of, projection
from control.mission_api.missions import Missions
from control.mission_api.runs import Runs, budgeted
from control.mission_api.store import MissionRow, with_run
from infra.auth import Caller
from infra.errors import InvalidArgument, Violation
from skyagent.execution.v1 import action_pb2 as act
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import command_pb2 as cmd
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Forked:
    """A run, where it grew from, and what a person should know of how it begins."""

    run_id: str
    parent: ev.ForkPoint
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    """A parent's journal while it is read: its state up to the fork point, and what it began in all."""

    seq: int
    at: RunFold = field(default_factory=RunFold)
    point_hash: bytes = b""
    planning_open: bool = True
    outcomes: dict[int, act.Outcome] = field(default_factory=dict[int, act.Outcome])
    bodies: list[ev.EventBody] = field(default_factory=list[ev.EventBody])

    def take(self, stored: StoredEvent) -> None:
        """The next event. Raises InvalidArgument EVENTS_ERASED when the fork would have to know what it said."""
        event, intent = event_of(stored), stored.kind == ev.EventBody.STEP_INTENDED_FIELD_NUMBER
        if event.erased and (intent or event.seq <= self.seq):
            cause = "what the run began cannot be told any more" if intent else "a fork can only begin before it"
            raise InvalidArgument(Violation("seq", f"event {event.seq} was erased: {cause}"), reason="EVENTS_ERASED")
        self.bodies.append(event.body)
        if event.seq > self.seq:
            return
        if event.seq == self.seq:
            self.point_hash = stored.hash
        self.at.apply(event)
        if not terminal(self.at.state.phase):
            self.planning_open = self.at.state.planning_open
        outcome = outcome_in(event.body)
        if outcome is not None:
            self.outcomes[event.seq] = outcome


@dataclass(frozen=True, slots=True)
class Forks:
    """Makes forks. What must not happen twice in the lineage is held by the journal, not by what is read here."""

    journal: Journal
    missions: Missions
    runs: Runs

    async def fork(self, request: api.ForkRunRequest, who: Caller) -> Forked:
        """The new run; a known request_id returns the run that exists.

        Raises:
            RunNotFound: also for another tenant's run.
            InvalidArgument: names the field: an event that is not there or was erased, inputs that come too late.
            IdReused: the request_id stands for another fork.
        """
        known = await self.journal.requested(who.tenant, request.request_id) if request.request_id else None
        if known is not None:
            return await self._known(known, request)
        head = await self.journal.head(request.run_id, tenant=who.tenant)
        if request.seq > head.head_seq:
            ends = f"run {request.run_id} ends at event {head.head_seq}: fork at that one or at an earlier one"
            raise InvalidArgument(Violation("seq", ends), reason="SEQ_BEYOND_END")
        reading = await self._read(request)
        parent = await self._parent(reading)
        _require_shared_effects(request, parent)
        spec = await self._spec(request, parent, who)
        inherited = inherit(parent, self.runs.ids.ulid)
        point = ForkPoint(request.run_id, request.seq, reading.point_hash)
        async with self.missions.starting:
            row = await self.missions.get(head.mission_id)
            bound = budgeted(await self.missions.draws(row))
            inherited = Inheritance((*inherited.events, *bound), inherited.notes)
            new = self._new_run(request, row, _created(row, parent, spec, point, who), inherited, point, who)
            made = await self.journal.create_run(new, also=(with_run(row.mission_id, new.run_id),))
        if made.run_id != new.run_id:  # the same request came at the same time
            return await self._known(made, request)
        await self.missions.show_inputs(made.run_id, spec)
        return Forked(made.run_id, _named(point), inherited.notes)

    async def _known(self, known: RunHead, request: api.ForkRunRequest) -> Forked:
        parent = (await folded_run(self.journal, known.run_id)).folded.state.parent
        if (parent.run_id, parent.seq) != (request.run_id, request.seq):
            raise IdReused("request_id", request.request_id)
        return Forked(known.run_id, parent)

    async def _read(self, request: api.ForkRunRequest) -> _Reading:
        reading, seen = _Reading(request.seq), 0
        while page := await self.journal.read(request.run_id, after_seq=seen, limit=_PAGE):
            for stored in page:
                reading.take(stored)
            seen = page[-1].seq
        return reading

    async def _parent(self, reading: _Reading) -> Parent:
        state = reading.at.state
        needed = {attempt.finished_seq for _, attempt in planned_on(reading.at)}
        outcomes = {seq: outcome for seq, outcome in reading.outcomes.items() if seq in needed}
        relatives = await self.journal.begun(state.lineage or state.run_id)
        begun = relatives or {
            step_id: one for step_id, one in begun_in(state.run_id, reading.bodies).items() if one.run_id
        }
        return Parent(state, outcomes, begun, reading.planning_open)

    async def _spec(self, request: api.ForkRunRequest, parent: Parent, who: Caller) -> mission.MissionSpec:
        """What the fork is asked to do: what its parent was, but for what the request changes."""
        spec = mission.MissionSpec()
        spec.CopyFrom(parent.state.spec)
        spec.goal = request.goal or parent.state.goal or spec.goal
        if not request.inputs:
            return spec
        self._require_in_time(request, parent)
        changed = {given.name: given.value for given in request.inputs}
        kept = [given for given in spec.inputs if given.name not in changed]
        kept_files = [file for file in spec.files if file.role not in changed]
        del spec.inputs[:], spec.files[:]
        spec.inputs.extend([*kept, *request.inputs])
        spec.files.extend(kept_files)
        return (await self.missions.preparation.prepare(spec, who.tenant)).spec

    def _require_in_time(self, request: api.ForkRunRequest, parent: Parent) -> None:
        """Raises InvalidArgument that names each input which no phase would read any more."""
        template = template_named(self.missions.preparation.templates, parent.state.spec.template)
        planned = {record.node.group.phase for record in parent.state.nodes}
        left = [PHASES[phase].reads for phase in template.phases if phase not in planned and parent.planning_open]
        late = f"at event {request.seq} all that it matters for is planned: fork at an earlier one"
        useless = [given.name for given in request.inputs if not any(given.name in reads for reads in left)]
        if useless:
            named = [Violation(f"inputs.{name}", late) for name in useless]
            raise InvalidArgument(*named, reason="INPUTS_TOO_LATE")

    def _new_run(
        self,
        request: api.ForkRunRequest,
        row: MissionRow,
        created: ev.RunCreated,
        inherited: Inheritance,
        point: ForkPoint,
        who: Caller,
    ) -> NewRun:
        run_id, now_ms, folded = self.runs.ids.ulid(), self.runs.clock.now_ms(), RunFold()
        bodies = (ev.EventBody(run_created=created), *inherited.events)
        for seq, body in enumerate(bodies, 1):
            event = ev.RunEvent(run_id=run_id, seq=seq, body=body)
            event.time.FromMilliseconds(now_ms)
            folded.apply(event)
        told = cmd.Command(fork=cmd.ForkCommand(run_id=run_id, seq=point.seq)).SerializeToString(deterministic=True)
        return NewRun(
            run_id=run_id,
            mission_id=row.mission_id,
            tenant=row.tenant,
            fold_version=FOLD_VERSION,
            events=tuple(EventDraft.of(body) for body in bodies),
            append_id=self.runs.ids.ulid(),
            request_id=request.request_id or None,
            projection=projection(folded),
            parent=point,
            lineage=created.lineage,
            tells_parent=Command(self.runs.ids.uuid(), point.run_id, row.tenant, "FORK", who.subject, told),
            time_ms=now_ms,
        )


def _require_shared_effects(request: api.ForkRunRequest, parent: Parent) -> None:
    """Raises InvalidArgument when the fork would plan anew what relatives did under a plan that it does not share."""
    later = planned_later(parent) if parent.planning_open else ()
    if later and not request.repeat_effects:
        told = (
            f"after event {request.seq}, {len(later)} steps were planned and begun that must not happen twice: a fork"
            " from before plans anew and may repeat them. Fork at a later event, or say repeat_effects"
        )
        raise InvalidArgument(Violation("seq", told), reason="EFFECTS_NOT_SHARED")


def _created(
    row: MissionRow, parent: Parent, spec: mission.MissionSpec, point: ForkPoint, who: Caller
) -> ev.RunCreated:
    state = parent.state
    return ev.RunCreated(
        mission_id=row.mission_id,
        tenant=row.tenant,
        spec=spec,
        actor=who.subject,
        template_version=state.template_version,
        fold_version=FOLD_VERSION,
        parent=_named(point),
        ordinal=row.run_count + 1,
        lineage=state.lineage or state.run_id,
    )


def _named(point: ForkPoint) -> ev.ForkPoint:
    return ev.ForkPoint(run_id=point.run_id, seq=point.seq, hash=hash_of(point.hash))
