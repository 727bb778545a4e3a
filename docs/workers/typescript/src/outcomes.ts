// Outcomes that a worker states itself, and the names of keys and digests.
import { create, toBinary } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { blake3 } from "@noble/hashes/blake3.js";
import { type Outcome, OutcomeSchema, OutcomeStatus } from "../gen/skyagent/execution/v1/action_pb.js";
import { Effect, EffectClass } from "../gen/skyagent/execution/v1/effect_pb.js";
import { type Fence, FenceSchema, type StepKey } from "../gen/skyagent/execution/v1/worker_service_pb.js";

/** An attempt without its fence, as one word. */
export type Name = string;

export const nameOf = (key: StepKey): Name => `${key.runId}/${key.stepId}/${key.attempt}`;

const ULID = /^[0-9A-HJKMNP-TV-Z]{26}$/;

/** A frame with any other key cannot even be answered. */
export function isWhole(key: StepKey | undefined): key is StepKey & { fence: Fence } {
  return key?.fence !== undefined && ULID.test(key.runId) && ULID.test(key.stepId) && key.attempt > 0;
}

export const fenceOf = (key: StepKey): Fence => key.fence ?? create(FenceSchema);

export function isLower(one: Fence, other: Fence): boolean {
  if (one.logGeneration !== other.logGeneration) return one.logGeneration < other.logGeneration;
  return one.epoch < other.epoch;
}

export const digestOf = (data: Uint8Array): string => `b3:${Buffer.from(blake3(data)).toString("hex")}`;

/** Nothing began, and nothing will. */
export const refused = (reason: string, message: string): Outcome =>
  outcome(OutcomeStatus.REFUSED, Effect.NONE, reason, message);

export const cancelled = (effect: Effect, why: string): Outcome =>
  outcome(OutcomeStatus.CANCELLED, effect, "CANCELLED", `cancelled: ${why}`);

export const failed = (effect: Effect, reason: string, message: string): Outcome =>
  outcome(OutcomeStatus.FAILED, effect, reason, message);

/** What can be said of an attempt that began in a process that died. */
export const lost = (effectClass: EffectClass): Outcome =>
  outcome(OutcomeStatus.LOST, unknownEffect(effectClass), "WORKER_DIED", "the worker died after this had begun");

/** Reading changes nothing in any case; of all else nobody knows. */
export const unknownEffect = (effectClass: EffectClass): Effect =>
  effectClass === EffectClass.READ ? Effect.NONE : Effect.UNKNOWN;

export const bytesOf = (what: Outcome): Uint8Array => toBinary(OutcomeSchema, what);

function outcome(status: OutcomeStatus, effect: Effect, reason: string, message: string): Outcome {
  const now = timestampFromMs(Date.now());
  return create(OutcomeSchema, {
    status,
    effect,
    reason,
    message: message.slice(0, 1000),
    startTime: now,
    endTime: now,
  });
}
