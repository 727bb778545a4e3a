"""What the control plane does itself: planning, writing the outcome table, and recording files that steps made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from control.agentfs import AgentFs, Recorded
from control.core.outcome_table import as_csv, as_html, outcomes
from control.core.phases import print_table
from control.core.planner import Known, events_of, extend
from control.core.tables import Table, parse_table
from control.core.templates import Template, template_named
from control.orchestrator.ledger import Ledger
from infra.blobs import BlobStore
from infra.ids import Ids
from skyagent.common.v1 import blob_pb2
from skyagent.execution.v1 import browser_pb2 as br
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
            unknown = ev.NodeSettled(node_id=record.node.node_id, state=ev.NODE_STATE_FAILED, signature="UNKNOWN_STEP")
            unknown.reason = f"this version cannot do {plan.ControlStep.Name(record.node.step.control)}"
            await self.ledger.commit((ev.EventBody(node_settled=unknown),), basis=basis)

    async def index(self, artifacts: Iterable[ev.ArtifactRecorded]) -> None:
        """Lists files that the journal names, for people; listing one again changes nothing."""
        state = self.ledger.state
        for artifact in artifacts:
            await self.agentfs.record(Recorded(state.tenant, state.run_id, artifact))

    def files_of(self, events: Sequence[ev.EventBody]) -> list[ev.EventBody]:
        """Files of the steps that these events find done, as events."""
        made: list[ev.EventBody] = []
        for event in events:
            validated = event.step_validated
            if event.HasField("step_validated") and validated.holds == plan.HOLDS_YES:
                made += self._files(self.ledger.folded.node(validated.step_id))
        return made

    def _files(self, record: st.NodeRecord) -> list[ev.EventBody]:
        action = record.node.step.action.browser
        outcome = self.ledger.outcome(record.attempts[-1])
        if outcome is None or action.WhichOneof("action") not in ("pdf", "download"):
            return []
        name = action.pdf.name or action.download.name or f"{record.node.node_id}.bin"
        return [self._made(name, blob, record.node.node_id) for blob in outcome.browser.files]

    async def _outcome_table(self, record: st.NodeRecord, basis: int) -> None:
        folded, step_id = self.ledger.folded, record.node.node_id
        rows = outcomes(folded)
        html = await self._store(as_html(folded, rows), "text/html; charset=utf-8")
        events = [
            self._made("outcome.csv", await self._store(as_csv(rows), "text/csv; charset=utf-8"), step_id),
            self._made("outcome.html", html, step_id),
            ev.EventBody(node_settled=_done(step_id, f"{len(rows)} records")),
        ]
        printing = print_table(await self._known(), record.node.parent_id, _pdf(html))
        extended = ev.PlanExtended(nodes=[printing], reason="people print tables", planner="outcome table")
        if await self.ledger.commit((ev.EventBody(plan_extended=extended), *events), basis=basis):
            await self.index(event.artifact_recorded for event in events if event.HasField("artifact_recorded"))

    def _made(self, name: str, blob: blob_pb2.BlobRef, step_id: str) -> ev.EventBody:
        artifact = ev.ArtifactRecorded(artifact_id=self.ids.ulid(), name=name, blob=blob, step_id=step_id)
        return ev.EventBody(artifact_recorded=artifact)

    async def _store(self, data: bytes, media_type: str) -> blob_pb2.BlobRef:
        blob = await self.blobs.put(data)
        return blob_pb2.BlobRef(digest=blob.digest, size=blob.size, media_type=media_type, role="artifact")

    async def _known(self) -> Known:
        inputs = {given.name: given.value for given in self.ledger.state.spec.inputs}
        return Known(self.ledger.folded, inputs, await self._table(), self.ledger.outcomes, self.ids.ulid)

    async def _table(self) -> Table | None:
        for file in self.ledger.state.spec.files:
            if file.role == "rows":
                return parse_table(await self.blobs.get(file.digest))
        return None


def _done(step_id: str, reason: str) -> ev.NodeSettled:
    return ev.NodeSettled(node_id=step_id, state=ev.NODE_STATE_SUCCEEDED, reason=reason)


def _pdf(html: blob_pb2.BlobRef) -> br.PdfAction:
    return br.PdfAction(html=html, name="outcome.pdf", landscape=True)
