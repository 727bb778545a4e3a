"""What the control plane does itself: planning, writing the outcome table, and recording files that steps made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from control.agentfs import AgentFs, Recorded
from control.core.made import Written, files_of, named, table_written, unknown_step
from control.core.outcome_table import as_csv, as_html, outcomes
from control.core.planner import Known, events_of, extend
from control.core.tables import Table, parse_table
from control.core.templates import Template, template_named
from control.orchestrator.ledger import Ledger
from infra.blobs import BlobStore
from infra.ids import Ids
from skyagent.common.v1 import blob_pb2
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st


@dataclass(frozen=True, slots=True)
class OwnSteps:
    """Steps of one run that need no worker."""

    ledger: Ledger
    blobs: BlobStore
    agentfs: AgentFs
    ids: Ids
    templates: Mapping[str, Template]

    async def plan(self) -> Sequence[ev.EventBody]:
        """What the planner adds next, for one commit.

        Raises:
            SkyError: when the mission cannot be planned.
        """
        state = self.ledger.state
        template = template_named(self.templates, state.spec.template)
        extension = extend(template.phases, await self._known())
        parts = events_of(extension, f"template {template.name} {template.version}")
        return [ev.EventBody(plan_extended=part) for part in parts]

    async def do(self, record: st.NodeRecord, basis: int) -> None:
        """Does a step and records what it made."""
        if record.node.step.control == plan.CONTROL_STEP_OUTCOME_TABLE:
            await self._outcome_table(record, basis)
        else:
            await self.ledger.commit((unknown_step(record),), basis=basis)

    async def index(self, artifacts: Iterable[ev.ArtifactRecorded]) -> None:
        """Lists files that the journal names, for people; listing one again changes nothing."""
        state = self.ledger.state
        for artifact in artifacts:
            await self.agentfs.record(Recorded(state.tenant, state.run_id, artifact))

    def files_of(self, events: Sequence[ev.EventBody]) -> list[ev.EventBody]:
        """Files of the steps that these events find done, as events."""
        return files_of(self.ledger.folded, self.ledger.outcomes, events, self.ids.ulid)

    async def _outcome_table(self, record: st.NodeRecord, basis: int) -> None:
        folded = self.ledger.folded
        rows = outcomes(folded)
        html = await self._store(as_html(folded, rows), "text/html; charset=utf-8")
        csv = await self._store(as_csv(rows), "text/csv; charset=utf-8")
        events = table_written(await self._known(), record, len(rows), Written(csv, html))
        if await self.ledger.commit(events, basis=basis):
            await self.index(event.artifact_recorded for event in events if event.HasField("artifact_recorded"))

    async def _store(self, data: bytes, media_type: str) -> blob_pb2.BlobRef:
        await self.blobs.put(data)
        return named(data, media_type)

    async def _known(self) -> Known:
        inputs = {given.name: given.value for given in self.ledger.state.spec.inputs}
        return Known(self.ledger.folded, inputs, await self._table(), self.ledger.outcomes, self.ids.ulid)

    async def _table(self) -> Table | None:
        for file in self.ledger.state.spec.files:
            if file.role == "rows":
                return parse_table(await self.blobs.get(file.digest))
        return None
