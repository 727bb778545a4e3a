"""The attempts that checks assign: noops of the profile, each with a marker of its own."""

from __future__ import annotations

from skyagent.execution.v1 import effect_pb2 as eff
from skyagent.execution.v1 import worker_service_pb2 as pb
from skyagent.execution.v1.action_pb2 import Action, NoopAction
from skyagent.execution.v1.tool_pb2 import ToolAction
from skyagent.execution.v1.workspace_pb2 import ReadFileAction, WorkspaceAction

FOREIGN = {
    "tool": Action(effect_class=eff.EFFECT_CLASS_READ, tool=ToolAction(tool="conformance.none")),
    "workspace.read_file": Action(
        effect_class=eff.EFFECT_CLASS_READ, workspace=WorkspaceAction(read_file=ReadFileAction(path="conformance"))
    ),
}
"""Valid actions by their name: a worker is told one that it does not offer."""


def noop(marker: bytes, effect_class: eff.EffectClass.ValueType = eff.EFFECT_CLASS_ONCE) -> Action:
    """Tells the witness the marker."""
    return Action(effect_class=effect_class, noop=NoopAction(payload=marker))


def attempt_of(key: pb.StepKey) -> tuple[str, str, int]:
    """A key without its fence."""
    return key.run_id, key.step_id, key.attempt


def fenced(key: pb.StepKey, epoch: int) -> pb.StepKey:
    """The same attempt in the right of another owner."""
    other = pb.StepKey()
    other.CopyFrom(key)
    other.fence.epoch = epoch
    return other
