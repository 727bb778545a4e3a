// What a run may use and has used, by kind: the twin of control/core/meters.py.
import { create } from "@bufbuild/protobuf";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import {
  type BudgetGranted,
  type ModelCallFinished,
  type ModelCallIntended,
  type RunBudgeted,
  type RunEvent,
  RunPhase,
} from "../gen/skyagent/run/v1/event_pb";
import { type Meter, MeterSchema, type OpenCall, OpenCallSchema, type RunState } from "../gen/skyagent/run/v1/state_pb";

export const MONEY = "money";
export const TOKENS = "tokens";
export const STEPS = "steps";
export const WALL_TIME = "wall_time";
const KINDS: ReadonlySet<string> = new Set([MONEY, TOKENS, STEPS, WALL_TIME]);

/** Journals of an earlier fold say nothing of model calls that are under way. */
const CALLS_SINCE_FOLD = 2;
/** Two events of a run that is under way are not further apart; when they are, somebody has set a clock. */
const LONGEST_GAP_MS = 86_400_000n;
/** Phases whose time is the run's own: not those in which it stands still for a person or has no owner. */
const UNDER_WAY: ReadonlySet<RunPhase> = new Set([RunPhase.RUNNING, RunPhase.PAUSING, RunPhase.CANCELLING]);

/** The meter of a kind, if there is one. */
export const meter = (state: RunState, kind: string): Meter | undefined =>
  state.meters.find((found) => found.kind === kind);

/** Whether a run may use only what it was granted of a kind. */
export const draws = (found: Meter): boolean => found.fromMission || found.fromTenant;

/** The run draws from budgets from now on. */
export function budgeted(state: RunState, body: RunBudgeted): void {
  for (const draw of body.draws) {
    const found = metered(state, draw.kind);
    if (!found) continue;
    found.fromMission ||= draw.fromMission;
    found.fromTenant ||= draw.fromTenant;
  }
}

/** A grant counts once, however often it is told. */
export function granted(state: RunState, body: BudgetGranted): void {
  if (state.grantIds.includes(body.grantId)) return;
  const found = metered(state, body.kind);
  if (!found) return;
  state.grantIds.push(body.grantId);
  found.allotted += body.amount;
  if (body.topUp) found.toppedUp += body.amount;
}

/** A person gave more. Where the run draws from budgets, the grant that comes with it counts instead. */
export function toppedUp(state: RunState, kind: string, amount: bigint): void {
  const found = metered(state, kind);
  if (found && !draws(found)) found.toppedUp += amount;
}

/** An attempt was intended. */
export function stepBegun(state: RunState): void {
  add(state, STEPS, 1n, 0n);
}

/** An open attempt is open no more; one that was withdrawn unsent has used nothing. */
export function stepEnded(state: RunState, spent: bigint): void {
  add(state, STEPS, -1n, spent);
}

/** Time has gone by since the last event; before a new owner came nobody worked. */
export function passed(state: RunState, event: RunEvent): void {
  if (!UNDER_WAY.has(state.phase) || event.body?.kind.case === "ownerChanged") return;
  const gap = msOf(event.time) - msOf(state.updateTime);
  add(state, WALL_TIME, 0n, gap < 0n ? 0n : gap > LONGEST_GAP_MS ? LONGEST_GAP_MS : gap);
}

/** A model call reserves what it may cost; the same call reserves once. */
export function callBegun(state: RunState, body: ModelCallIntended): void {
  if (state.foldVersion < CALLS_SINCE_FOLD || call(state, body.callId)) return;
  const { callId, reservedMicrousd, reservedTokens } = body;
  state.calls.push(create(OpenCallSchema, { callId, reservedMicrousd, reservedTokens }));
  add(state, MONEY, reservedMicrousd, 0n);
  add(state, TOKENS, reservedTokens, 0n);
}

/** Settles a model call; returns the microusd that it cost. Unknown cost settles at the full reservation. */
export function callEnded(state: RunState, body: ModelCallFinished): bigint {
  const open = call(state, body.callId);
  if (!open) return body.costMicrousd;
  const microusd = body.costUnknown ? open.reservedMicrousd : body.costMicrousd;
  settle(state, open, microusd, body.costUnknown ? open.reservedTokens : body.inputTokens + body.outputTokens);
  return microusd;
}

/** The run has ended: of a call that never came back nobody will learn what it cost. */
export function ended(state: RunState): void {
  for (const open of [...state.calls]) settle(state, open, open.reservedMicrousd, open.reservedTokens);
}

function settle(state: RunState, open: OpenCall, microusd: bigint, tokens: bigint): void {
  add(state, MONEY, -open.reservedMicrousd, microusd);
  add(state, TOKENS, -open.reservedTokens, tokens);
  state.calls.splice(state.calls.indexOf(open), 1);
}

const call = (state: RunState, id: string): OpenCall | undefined => state.calls.find((open) => open.callId === id);

function add(state: RunState, kind: string, reserved: bigint, spent: bigint): void {
  const found = meter(state, kind);
  if (!found) return;
  found.reserved = found.reserved + reserved > 0n ? found.reserved + reserved : 0n;
  found.spent += spent;
}

/** The meter of a kind, begun with what the run has used so far; nothing for a kind that this version does not know. */
function metered(state: RunState, kind: string): Meter | undefined {
  if (!KINDS.has(kind)) return undefined;
  const known = meter(state, kind);
  if (known) return known;
  const found = create(MeterSchema, { kind });
  const { counts } = state;
  if (kind === STEPS) {
    const begun = BigInt(counts?.attempts ?? 0);
    found.reserved = BigInt(counts?.openIntents ?? 0);
    found.spent = begun > found.reserved ? begun - found.reserved : 0n;
  }
  if (kind === MONEY) {
    found.spent = counts?.costMicrousd ?? 0n;
    found.reserved = state.calls.reduce((sum, open) => sum + open.reservedMicrousd, 0n);
  }
  if (kind === TOKENS) found.reserved = state.calls.reduce((sum, open) => sum + open.reservedTokens, 0n);
  state.meters.push(found);
  return found;
}

function msOf(time: Timestamp | undefined): bigint {
  return time ? time.seconds * 1000n + BigInt(Math.floor(time.nanos / 1_000_000)) : 0n;
}
