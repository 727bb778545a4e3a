// What this worker can do: nothing at all, and one tool. The world that its actions touch is here and nowhere else.
import { create, type JsonObject } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { type BlobRef, BlobRefSchema } from "../gen/skyagent/common/v1/blob_pb.js";
import { type Action, type Outcome, OutcomeSchema, OutcomeStatus } from "../gen/skyagent/execution/v1/action_pb.js";
import { Effect } from "../gen/skyagent/execution/v1/effect_pb.js";
import { type ToolAction, ToolResultSchema, ToolStatus } from "../gen/skyagent/execution/v1/tool_pb.js";
import type { Blob } from "./journal.ts";
import { cancelled, digestOf, failed, unknownEffect } from "./outcomes.ts";

export const OFFERED = ["noop/1", "tool/1"];

/** What came of an action, with the bytes that it names. */
export interface Done {
  readonly outcome: Outcome;
  readonly blobs: readonly Blob[];
}

export interface Bounds {
  readonly allowedHosts: readonly string[];
  readonly witness: string;
  readonly signal: AbortSignal; // its reason says why
}

/** Why this worker cannot do an action; nothing when it can. */
export function objectionTo(action: Action): string | undefined {
  if (action.kind.case === "noop") return undefined;
  return action.kind.case === "tool" ? undefined : `this worker cannot do ${action.kind.case ?? "nothing"}`;
}

/** Carries it out. Whatever is thrown is that step's failure, and says no more of its effect than is known. */
export async function execute(action: Action, bounds: Bounds): Promise<Done> {
  const started = Date.now();
  try {
    const done = action.kind.case === "tool" ? await call(action.kind.value, bounds) : await nothing(action, bounds);
    done.outcome.startTime = timestampFromMs(started);
    done.outcome.endTime = timestampFromMs(Date.now());
    return done;
  } catch (error) {
    const effect = unknownEffect(action.effectClass);
    if (bounds.signal.aborted) return { outcome: cancelled(effect, String(bounds.signal.reason)), blobs: [] };
    return { outcome: failed(effect, "WORKER_ERROR", String(error)), blobs: [] };
  }
}

async function nothing(action: Action, { witness, signal }: Bounds): Promise<Done> {
  const payload = action.kind.case === "noop" ? action.kind.value.payload : new Uint8Array();
  const result = { case: "noop", value: { payload } } as const;
  if (!witness)
    return { outcome: create(OutcomeSchema, { status: OutcomeStatus.OK, effect: Effect.NONE, result }), blobs: [] };
  const answer = await fetch(witness, { method: "POST", body: Buffer.from(payload), signal });
  if (!answer.ok) throw new Error(`the witness answered ${answer.status}`);
  const kept = evidence(await answer.bytes(), "text/plain", "witness");
  return {
    outcome: create(OutcomeSchema, { status: OutcomeStatus.OK, effect: Effect.DONE, blobs: kept.refs, result }),
    blobs: kept.blobs,
  };
}

/** `http.get`: reads an address that the mission may reach; the page is kept as evidence. */
async function call(tool: ToolAction, { allowedHosts, signal }: Bounds): Promise<Done> {
  if (tool.tool !== "http.get") return told(ToolStatus.SCHEMA_CHANGED, "UNKNOWN_TOOL", `there is no tool ${tool.tool}`);
  const url = URL.parse(String((tool.arguments as JsonObject | undefined)?.["url"]));
  if (!url?.protocol.startsWith("http"))
    return told(ToolStatus.ERROR, "INVALID_ARGUMENT", "arguments.url is no http address");
  if (!allowedHosts.some((host) => reaches(host, url))) {
    return told(ToolStatus.POLICY_DENIED, "HOST_NOT_ALLOWED", `the mission may not reach ${url.host}`);
  }
  const timeout = AbortSignal.timeout(Number(tool.timeout?.seconds ?? 30n) * 1000);
  const answer = await fetch(url, { redirect: "error", signal: AbortSignal.any([signal, timeout]) });
  const kept = evidence(await answer.bytes(), answer.headers.get("content-type") ?? "", "page");
  const value = {
    status: answer.ok ? ToolStatus.OK : ToolStatus.ERROR,
    text: `HTTP ${answer.status}`,
    files: kept.refs,
  };
  const status = answer.ok ? OutcomeStatus.OK : OutcomeStatus.FAILED;
  const outcome = create(OutcomeSchema, {
    status,
    effect: Effect.NONE,
    blobs: kept.refs,
    result: { case: "tool", value },
  });
  return { outcome, blobs: kept.blobs };
}

/** A host of the mission, with its port unless it is 80 or 443; "*.example.com" is every name below. */
function reaches(allowed: string, url: URL): boolean {
  const host = allowed.replace(/:(80|443)$/, "");
  return host.startsWith("*.") ? url.host.endsWith(host.slice(1)) : url.host === host;
}

function told(status: ToolStatus, reason: string, text: string): Done {
  const outcome = failed(Effect.NONE, reason, text);
  outcome.result = { case: "tool", value: create(ToolResultSchema, { status, text }) };
  return { outcome, blobs: [] };
}

function evidence(data: Uint8Array, mediaType: string, role: string): { refs: BlobRef[]; blobs: Blob[] } {
  if (data.length === 0) return { refs: [], blobs: [] };
  const digest = digestOf(data);
  return {
    refs: [create(BlobRefSchema, { digest, size: BigInt(data.length), mediaType, role })],
    blobs: [{ digest, data }],
  };
}
