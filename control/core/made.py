"""Files that a run makes, as its journal tells of them, and the steps that the control plane does itself. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from control.core.phases import print_table
from control.core.planner import Known
from control.core.run import RunFold
from infra.digest import digest_of
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.execution.v1 import action_pb2 as act
from skyagent.execution.v1 import browser_pb2 as br
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import plan_pb2 as plan
from skyagent.run.v1 import state_pb2 as st


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome table in its two forms."""

    csv: BlobRef
    html: BlobRef


def named(data: bytes, media_type: str) -> BlobRef:
    """What names bytes that the control plane wrote."""
    return BlobRef(digest=digest_of(data), size=len(data), media_type=media_type, role="artifact")


def table_written(known: Known, record: st.NodeRecord, rows: int, written: Written) -> list[ev.EventBody]:
    """The events after which the outcome table is there, and will be printed."""
    step_id = record.node.node_id
    pdf = br.PdfAction(html=written.html, name="outcome.pdf", landscape=True)
    printing = print_table(known, record.node.parent_id, pdf)
    extended = ev.PlanExtended(nodes=[printing], reason="people print tables", planner="outcome table")
    settled = ev.NodeSettled(node_id=step_id, state=ev.NODE_STATE_SUCCEEDED, reason=f"{rows} records")
    return [
        ev.EventBody(plan_extended=extended),
        _made(known.new_id(), "outcome.csv", written.csv, step_id),
        _made(known.new_id(), "outcome.html", written.html, step_id),
        ev.EventBody(node_settled=settled),
    ]


def unknown_step(record: st.NodeRecord) -> ev.EventBody:
    """The end of a step that this version cannot do."""
    unknown = ev.NodeSettled(node_id=record.node.node_id, state=ev.NODE_STATE_FAILED, signature="UNKNOWN_STEP")
    unknown.reason = f"this version cannot do {plan.ControlStep.Name(record.node.step.control)}"
    return ev.EventBody(node_settled=unknown)


def files_of(
    folded: RunFold, outcomes: Mapping[int, act.Outcome], events: Sequence[ev.EventBody], new_id: Callable[[], str]
) -> list[ev.EventBody]:
    """Files of the steps that these events find done, as events."""
    made: list[ev.EventBody] = []
    for event in events:
        validated = event.step_validated
        if event.HasField("step_validated") and validated.holds == plan.HOLDS_YES:
            made += _files(folded.node(validated.step_id), outcomes, new_id)
    return made


def _files(record: st.NodeRecord, outcomes: Mapping[int, act.Outcome], new_id: Callable[[], str]) -> list[ev.EventBody]:
    action = record.node.step.action.browser
    outcome = outcomes.get(record.attempts[-1].finished_seq)
    if outcome is None or action.WhichOneof("action") not in ("pdf", "download"):
        return []
    name = action.pdf.name or action.download.name or f"{record.node.node_id}.bin"
    return [_made(new_id(), name, blob, record.node.node_id) for blob in outcome.browser.files]


def _made(artifact_id: str, name: str, blob: BlobRef, step_id: str) -> ev.EventBody:
    artifact = ev.ArtifactRecorded(artifact_id=artifact_id, name=name, blob=blob, step_id=step_id)
    return ev.EventBody(artifact_recorded=artifact)
