// The plan inside a run's state, with an index: which node is below which, and how groups follow their children.
import { create } from "@bufbuild/protobuf";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";
import { type NodeRecord, type RunCounts, RunCountsSchema, type RunState } from "../gen/skyagent/run/v1/state_pb";
import { aborts, ENDED, groupState, isProbe, nodeId, planned, stepOf, type Tally } from "./tree";

/** An event that cannot follow what was folded so far, or that this version does not know. */
export class IllegalEvent extends Error {
  constructor(
    readonly reason: string,
    message: string,
  ) {
    super(message);
    this.name = "IllegalEvent";
  }
}

export class Plan {
  readonly #records = new Map<string, NodeRecord>();
  readonly #children = new Map<string, NodeRecord[]>();
  readonly #tallies = new Map<string, Tally>();

  constructor(readonly state: RunState) {
    for (const record of state.nodes) this.#index(record);
  }

  /** Counters, to be changed: asking for them makes them part of the state. */
  get counts(): RunCounts {
    this.state.counts ??= create(RunCountsSchema);
    return this.state.counts;
  }

  add(record: NodeRecord): void {
    this.state.nodes.push(record);
    this.#index(record);
    const probe = isProbe(record);
    if (stepOf(record) && !probe) this.counts.steps += 1;
    if (planned(record).parentId && !probe) this.#refresh(record);
  }

  /** The record of a node; throws IllegalEvent when the plan has no such node. */
  node(id: string): NodeRecord {
    const record = this.#records.get(id);
    if (!record) throw new IllegalEvent("UNKNOWN_NODE", `run ${this.state.runId} has no node '${id}' in its plan`);
    return record;
  }

  find(id: string): NodeRecord | undefined {
    return this.#records.get(id);
  }

  /** The nodes directly below a group, in the order in which they were planned; "" stands for the whole plan. */
  children(id: string): readonly NodeRecord[] {
    return this.#children.get(id) ?? [];
  }

  /** Every node below a group, parents first. */
  *descendants(id: string): Generator<NodeRecord> {
    for (const child of this.children(id)) {
      yield child;
      yield* this.descendants(nodeId(child));
    }
  }

  /** Moves a node to a state, and the groups above it with it. */
  set(record: NodeRecord, state: NodeState): void {
    const before = record.state;
    if (before === state) return;
    const step = stepOf(record);
    const became = (which: NodeState) => Number(state === which) - Number(before === which);
    if (step && !step.probeOf) this.counts.stepsSucceeded += became(NodeState.SUCCEEDED);
    if (step) this.counts.uncertain += became(NodeState.UNCERTAIN);
    record.state = state;
    if (isProbe(record)) return;
    const tally = this.#tally(planned(record).parentId);
    tally.set(before, (tally.get(before) ?? 0) - 1);
    tally.set(state, (tally.get(state) ?? 0) + 1);
    this.#refresh(record);
  }

  #index(record: NodeRecord): void {
    const { parentId } = planned(record);
    this.#records.set(nodeId(record), record);
    const siblings = this.#children.get(parentId);
    if (siblings) siblings.push(record);
    else this.#children.set(parentId, [record]);
    if (isProbe(record)) return;
    const tally = this.#tally(parentId);
    tally.set(record.state, (tally.get(record.state) ?? 0) + 1);
  }

  #tally(parentId: string): Tally {
    let tally = this.#tallies.get(parentId);
    if (!tally) {
      tally = new Map();
      this.#tallies.set(parentId, tally);
    }
    return tally;
  }

  /** Lets the group above a changed node follow it. */
  #refresh(child: NodeRecord): void {
    const { parentId } = planned(child);
    if (!parentId) {
      if (aborts(child)) this.#skipPending("");
      return;
    }
    const parent = this.node(parentId);
    if (aborts(child) && !ENDED.has(parent.state)) {
      parent.reason = child.reason;
      parent.signature = child.signature;
      this.set(parent, child.state);
      this.#skipPending(parentId);
      return;
    }
    if (ENDED.has(parent.state) && child.state === NodeState.SKIPPED) return;
    this.set(parent, groupState(this.#tally(parentId), parent.state));
  }

  #skipPending(groupId: string): void {
    for (const record of this.descendants(groupId)) {
      if (record.state !== NodeState.PENDING) continue;
      record.reason = "not tried, because of a failure before it";
      this.set(record, NodeState.SKIPPED);
    }
  }
}
