"""What a run's record says when it is looked at again: replayed by this program, or beside another run."""

from __future__ import annotations

from dataclasses import dataclass

from control.core.diff import Happening, happenings, parting, steps_that_differ
from control.core.replay import Given, replay
from control.core.run import fold
from control.core.summary import state_digest, summary
from control.core.tables import Table, parse_table
from control.journal import Journal
from control.journal.folding import event_of
from control.mission_api.preparing import Preparation
from infra.errors import NotFound, Precondition
from skyagent.mission.v1 import mission_pb2 as mission
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import run_service_pb2 as api
from skyagent.run.v1 import state_pb2 as st

_PAGE = 1000


@dataclass(frozen=True, slots=True)
class _Whole:
    """A run with all that happened in it, what it inherited included."""

    state: st.RunState
    events: list[ev.RunEvent]


@dataclass(frozen=True, slots=True)
class Comparing:
    """Reads journals, and says what the core finds in them. It reaches no network, no model and no worker."""

    journal: Journal
    preparation: Preparation

    async def replay(self, run_id: str, tenant: str) -> api.ReplayRunResponse:
        """A run decided again. Raises RunNotFound, or Precondition when what it was planned from is gone."""
        await self.journal.head(run_id, tenant=tenant)
        events = await self._events(run_id)
        table = await self._table(events[0].body.run_created.spec)
        found = replay(events, Given(self.preparation.templates, table))
        answer = api.ReplayRunResponse(
            state_digest=state_digest(found.state), decisions=found.decided, inputs=found.taken, erased=found.erased
        )
        if found.difference is not None:
            answer.first_difference, answer.detail = found.difference.seq, found.difference.detail
            answer.recorded.CopyFrom(found.difference.recorded)
            if found.difference.decided is not None:
                answer.decided.CopyFrom(found.difference.decided)
        return answer

    async def diff(self, one_id: str, other_id: str, tenant: str) -> api.DiffRunsResponse:
        """Two runs beside each other. Raises RunNotFound."""
        one, other = await self._whole(one_id, tenant), await self._whole(other_id, tenant)
        parted = parting(happenings(one.events, one.state), happenings(other.events, other.state))
        return api.DiffRunsResponse(
            common=parted.common,
            first=_shown(parted.one),
            other_first=_shown(parted.other),
            steps=steps_that_differ(one.state, other.state),
            run=summary(one.state),
            other=summary(other.state),
        )

    async def _whole(self, run_id: str, tenant: str) -> _Whole:
        """A fork's own events follow those of its parent up to the fork point."""
        await self.journal.head(run_id, tenant=tenant)
        own = await self._events(run_id)
        state = fold(own)
        if not state.parent.run_id:
            return _Whole(state, own)
        before = await self._whole(state.parent.run_id, tenant)
        at = next((n for n, event in enumerate(before.events) if _is(event, state.parent)), len(before.events) - 1)
        since = [event for event in own if not _inherited(event, state)]
        return _Whole(state, [*before.events[: at + 1], *since])

    async def _events(self, run_id: str) -> list[ev.RunEvent]:
        found = list[ev.RunEvent]()
        while page := await self.journal.read(run_id, after_seq=found[-1].seq if found else 0, limit=_PAGE):
            found += [event_of(stored) for stored in page]
        return found

    async def _table(self, spec: mission.MissionSpec) -> Table | None:
        for file in spec.files:
            if file.role == "rows":
                try:
                    return parse_table(await self.preparation.blobs.get(file.digest))
                except NotFound as gone:
                    told = f"the table {file.digest} that the run was planned from is not stored any more"
                    raise Precondition("INPUT_GONE", told) from gone
        return None


def _is(event: ev.RunEvent, point: ev.ForkPoint) -> bool:
    return (event.run_id, event.seq) == (point.run_id, point.seq)


def _inherited(event: ev.RunEvent, state: st.RunState) -> bool:
    """Whether an event of a fork tells what its parent's tell already."""
    told = event.body.WhichOneof("kind") in ("run_created", "state_inherited", "outcome_inherited")
    artifact = event.body.HasField("artifact_recorded") and event.time == state.create_time
    return told or artifact


def _shown(happening: Happening | None) -> api.Happening | None:
    if happening is None:
        return None
    event = happening.event
    return api.Happening(run_id=event.run_id, seq=event.seq, text=happening.text, body=event.body)
