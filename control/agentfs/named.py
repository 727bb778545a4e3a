"""Which bytes events name: whoever may read a run may read those."""

from __future__ import annotations

from collections.abc import Sequence

from infra.refs import blob_refs
from skyagent.common.v1.blob_pb2 import BlobRef
from skyagent.run.v1 import event_pb2 as ev
from skyagent.run.v1 import state_pb2 as st


def blobs_named(body: ev.EventBody) -> Sequence[BlobRef]:
    """What the event of a run lets its tenant read."""
    match body.WhichOneof("kind"):
        case "step_finished":
            return [ref for ref in blob_refs(body.step_finished.outcome) if ref.digest]
        case "late_result":
            return [ref for ref in blob_refs(body.late_result.outcome) if ref.digest]
        case "artifact_recorded":
            return [body.artifact_recorded.blob]
        case "outcome_inherited":
            return [ref for ref in blob_refs(body.outcome_inherited.outcome) if ref.digest]
        case "state_inherited":
            return [ref for ref in blob_refs(st.RunState.FromString(body.state_inherited.state)) if ref.digest]
        case _:
            return ()
