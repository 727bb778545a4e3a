// When what happened: one bar an attempt, one lane a worker, with long waits drawn short.
import type { RunEvent } from "../gen/skyagent/run/v1/event_pb";
import type { AttemptRecord, NodeRecord, RunState } from "../gen/skyagent/run/v1/state_pb";
import { millis } from "../lib/format";
import { nodeId, planned } from "./tree";

export interface Bar {
  readonly id: string;
  readonly title: string;
  readonly lane: string;
  readonly from: number;
  readonly to: number;
  readonly record: NodeRecord;
  readonly attempt: AttemptRecord;
}

export type MarkKind = "asked" | "answered" | "takeover" | "uncertain" | "paused";

export interface Mark {
  readonly kind: MarkKind;
  readonly at: number;
  readonly seq: bigint;
}

/** Nothing at all for longer than this is drawn as if it had taken just so long. */
const WAIT_MS = 2_000;

export function bars(state: RunState, now: number): Bar[] {
  const found: Bar[] = [];
  for (const record of state.nodes) {
    for (const attempt of record.attempts) {
      const from = millis(attempt.intendTime);
      if (from === undefined) continue;
      const to = millis(attempt.finishTime) ?? (attempt.open ? Math.max(now, from) : from);
      found.push({
        id: nodeId(record),
        title: planned(record).title,
        lane: attempt.workerId,
        from,
        to,
        record,
        attempt,
      });
    }
  }
  return found.sort((one, other) => one.from - other.from);
}

export function marks(events: readonly RunEvent[]): Mark[] {
  return events.flatMap((event) => {
    const at = millis(event.time);
    const kind = markOf(event);
    return kind && at !== undefined ? [{ kind, at, seq: event.seq }] : [];
  });
}

function markOf({ body, seq }: RunEvent): MarkKind | undefined {
  const kind = body?.kind;
  if (kind?.case === "approvalRequested") return "asked";
  if (kind?.case === "approvalDecided") return "answered";
  if (kind?.case === "stepUncertain") return "uncertain";
  if (kind?.case === "ownerChanged" && seq > 2n) return "takeover";
  if (kind?.case === "commandApplied" && kind.value.command?.kind.case === "pause") return "paused";
  return undefined;
}

/** From a time to a place between 0 and 1. */
export type Scale = (at: number) => number;

/** A scale on which something happens everywhere: waits are cut down to WAIT_MS. */
export function scale(
  from: number,
  to: number,
  busy: readonly { readonly from: number; readonly to: number }[],
): Scale {
  const cuts: { readonly at: number; readonly less: number }[] = [];
  let end = from;
  let less = 0;
  const wait = (until: number) => {
    if (until - end > WAIT_MS) cuts.push({ at: end, less: until - end - WAIT_MS });
  };
  for (const each of busy) {
    wait(each.from);
    end = Math.max(end, each.to);
  }
  wait(to);
  for (const cut of cuts) less += cut.less;
  const whole = Math.max(1, to - from - less);
  return (at) => {
    let place = at - from;
    for (const cut of cuts) {
      // A cut shortens what follows the first WAIT_MS of its wait.
      if (at > cut.at + WAIT_MS) place -= Math.min(cut.less, at - cut.at - WAIT_MS);
    }
    return Math.max(0, Math.min(1, place / whole));
  };
}
