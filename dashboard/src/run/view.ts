// What the live-run page shows, read off the fold. Nothing here is kept: it follows from the state.
import type { BlobRef } from "../gen/skyagent/common/v1/blob_pb";
import { OutcomeStatus } from "../gen/skyagent/execution/v1/action_pb";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";
import { Holds } from "../gen/skyagent/run/v1/plan_pb";
import type { AttemptRecord, NodeRecord, RunState } from "../gen/skyagent/run/v1/state_pb";
import type { Plan } from "./plan";
import { groupOf, isProbe, nodeId, planned, stepOf } from "./tree";

const UNDER_WAY: ReadonlySet<NodeState> = new Set([
  NodeState.RUNNING,
  NodeState.CHECKING,
  NodeState.WAITING,
  NodeState.UNCERTAIN,
]);
const SHOWN_OPEN: ReadonlySet<NodeState> = new Set([...UNDER_WAY, NodeState.FAILED, NodeState.DENIED]);

/** One line of the plan. */
export interface Row {
  readonly record: NodeRecord;
  readonly depth: number;
  /** Whether its children are shown; undefined when it has none. */
  readonly open: boolean | undefined;
  /** A false success was caught here, or below what is folded. */
  readonly caught: boolean;
  /** What a probe that decided said: whether the step it asks about is true. */
  readonly said: Holds | undefined;
}

/** The lines of the plan from top to bottom; probes stand below the step that they ask about. */
export function rows(
  plan: Plan,
  { toggled, filter, shown }: { toggled: ReadonlyMap<string, boolean>; filter: string; shown: string },
): Row[] {
  const lines: Row[] = [];
  const wanted = filter.trim().toLowerCase();
  const leads = new Set(ancestors(plan, shown));
  const matches = (record: NodeRecord): boolean => planned(record).title.toLowerCase().includes(wanted);
  const within = (record: NodeRecord): boolean =>
    matches(record) || plan.children(nodeId(record)).some((child) => within(child));
  const visit = (parentId: string, depth: number, all: boolean): void => {
    const children = plan.children(parentId);
    for (const record of children) {
      if (isProbe(record) || (wanted && !all && !within(record))) continue;
      const id = nodeId(record);
      const group = groupOf(record) !== undefined;
      const open = group
        ? Boolean(wanted) || (toggled.get(id) ?? (leads.has(id) || opensByItself(plan, record)))
        : undefined;
      lines.push({
        record,
        depth,
        open,
        caught: open ? false : caughtFalse(record) || caughtBelow(plan, record),
        said: undefined,
      });
      for (const probe of children) {
        if (stepOf(probe)?.probeOf === id)
          lines.push({ record: probe, depth: depth + 1, open: undefined, caught: false, said: saidBy(record, probe) });
      }
      if (open) visit(id, depth + 1, all || matches(record));
    }
  };
  visit("", 0, false);
  return lines;
}

function ancestors(plan: Plan, id: string): string[] {
  const record = plan.find(id);
  const parentId = record && planned(record).parentId;
  return parentId ? [parentId, ...ancestors(plan, parentId)] : [];
}

function opensByItself(plan: Plan, record: NodeRecord): boolean {
  if (SHOWN_OPEN.has(record.state)) return true;
  return plan.children(nodeId(record)).some((child) => groupOf(child) !== undefined);
}

function saidBy(record: NodeRecord, probe: NodeRecord): Holds | undefined {
  const findings = record.attempts.flatMap((attempt) => attempt.findings);
  return findings.find((finding) => finding.probeStepId === nodeId(probe))?.holds;
}

/** The step that is being done, else the last one that was. */
export function currentStep(state: RunState): NodeRecord | undefined {
  let last: NodeRecord | undefined;
  let lastSeq = -1n;
  for (const record of state.nodes) {
    if (!stepOf(record)) continue;
    if (record.state === NodeState.WAITING || record.state === NodeState.UNCERTAIN) return record;
    const seq = record.attempts.at(-1)?.intendedSeq ?? -1n;
    if (seq > lastSeq) [last, lastSeq] = [record, seq];
  }
  return last;
}

/** The titles from the top of the plan down to a node, itself left out. */
export function above(plan: Plan, record: NodeRecord): string[] {
  const parent = plan.find(planned(record).parentId);
  return parent ? [...above(plan, parent), planned(parent).title] : [];
}

/** The attempt said OK, and the application, asked again, said otherwise. */
export function wasFalse(attempt: AttemptRecord): boolean {
  return attempt.holds === Holds.NO && attempt.status === OutcomeStatus.OK;
}

export function caughtFalse(record: NodeRecord): boolean {
  return record.attempts.some(wasFalse);
}

export function caughtBelow(plan: Plan, record: NodeRecord): boolean {
  return [...plan.descendants(nodeId(record))].some(caughtFalse);
}

/** The last picture that was taken before an attempt was intended: what the session showed when it began. */
export function pictureBefore(state: RunState, seq: bigint): BlobRef | undefined {
  let found: BlobRef | undefined;
  let at = 0n;
  for (const record of state.nodes) {
    if (isProbe(record)) continue;
    for (const attempt of record.attempts) {
      if (attempt.finishedSeq <= at || attempt.finishedSeq >= seq) continue;
      const picture = pictureOf(attempt);
      if (picture) [found, at] = [picture, attempt.finishedSeq];
    }
  }
  return found;
}

export function pictureOf(attempt: AttemptRecord | undefined): BlobRef | undefined {
  return attempt?.blobs.find((blob) => blob.role === "screenshot");
}

/** Every record of the inputs, with how it stands. */
export function recordGroups(state: RunState): NodeRecord[] {
  return state.nodes.filter((record) => groupOf(record)?.recordKey);
}

/** The probes that asked about an attempt, oldest first. */
export function probesOf(plan: Plan, attempt: AttemptRecord): NodeRecord[] {
  const ids = new Set(attempt.findings.map((finding) => finding.probeStepId).filter(Boolean));
  return [...ids].flatMap((id) => plan.find(id) ?? []);
}

export function uncertain(state: RunState): NodeRecord[] {
  return state.nodes.filter((record) => stepOf(record) && record.state === NodeState.UNCERTAIN);
}
