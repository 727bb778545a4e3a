// How groups follow what is below them: the twin of control/core/tree.py.
import { create } from "@bufbuild/protobuf";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";
import { type Group, OnFailure, type PlanNode, PlanNodeSchema, type Step } from "../gen/skyagent/run/v1/plan_pb";
import type { NodeRecord } from "../gen/skyagent/run/v1/state_pb";

/** States of a node that is done with. */
export const ENDED: ReadonlySet<NodeState> = new Set([
  NodeState.SUCCEEDED,
  NodeState.FAILED,
  NodeState.SKIPPED,
  NodeState.DENIED,
]);

const FIRST_OF = [NodeState.UNCERTAIN, NodeState.WAITING, NodeState.CHECKING, NodeState.RUNNING];
const NO_NODE = create(PlanNodeSchema);

export type Tally = Map<NodeState, number>;

/** The state of a group with so many children in each state. What needs a person shows first. */
export function groupState(tally: Tally, before: NodeState): NodeState {
  for (const state of FIRST_OF) {
    if (tally.get(state)) return state === NodeState.CHECKING ? NodeState.RUNNING : state;
  }
  const present = [...tally].filter(([, count]) => count > 0).map(([state]) => state);
  const only = (allowed: ReadonlySet<NodeState>) => present.every((state) => allowed.has(state));
  if (only(new Set([NodeState.SUCCEEDED]))) return present.length ? NodeState.SUCCEEDED : before;
  if (only(new Set([NodeState.SKIPPED]))) return NodeState.SKIPPED;
  if (only(ENDED)) return NodeState.FAILED;
  if (only(new Set([NodeState.PENDING]))) return NodeState.PENDING;
  return NodeState.RUNNING;
}

/** The node as it was planned. */
export function planned(record: NodeRecord): PlanNode {
  return record.node ?? NO_NODE;
}

export function nodeId(record: NodeRecord): string {
  return planned(record).nodeId;
}

export function stepOf(record: NodeRecord): Step | undefined {
  const { kind } = planned(record);
  return kind.case === "step" ? kind.value : undefined;
}

export function groupOf(record: NodeRecord): Group | undefined {
  const { kind } = planned(record);
  return kind.case === "group" ? kind.value : undefined;
}

/** Whether the node only asks the application about another step. */
export function isProbe(record: NodeRecord): boolean {
  return Boolean(stepOf(record)?.probeOf);
}

/** Whether the end of this node ends the group above it. */
export function aborts(record: NodeRecord): boolean {
  if (record.state !== NodeState.FAILED && record.state !== NodeState.DENIED) return false;
  return stepOf(record) !== undefined || groupOf(record)?.onFailure !== OnFailure.CONTINUE;
}
