// Following a run through whatever happens between here and its journal: every event once, in order.
import type { RunEvent } from "../gen/skyagent/run/v1/event_pb";
import type { WatchRunResponse } from "../gen/skyagent/run/v1/run_service_pb";
import { CallError } from "../lib/errors";
import { IllegalEvent } from "./plan";

/** How this page stands to the run's journal. */
export type Link =
  | { readonly kind: "connecting" }
  | { readonly kind: "live" }
  | { readonly kind: "reconnecting"; readonly since: number; readonly why: string }
  | { readonly kind: "hidden" }
  | { readonly kind: "ended" }
  | { readonly kind: "failed"; readonly error: Error };

export interface Followed {
  open(afterSeq: bigint, signal: AbortSignal): AsyncIterable<WatchRunResponse>;
  /** The last event that was seen. */
  seq(): bigint;
  onEvent(event: RunEvent): void;
  onLink(link: Link): void;
}

/** The server sends a heartbeat every 5 s; a stream that brings nothing for so long is broken. */
export const SILENCE_MS = 15_000;
const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5_000;

/** Returns when the run has ended, when it cannot be followed, or when `signal` aborts. */
export async function follow(run: Followed, signal: AbortSignal): Promise<void> {
  let failures = 0;
  let since = 0;
  const link = (next: Link) => {
    if (!signal.aborted) run.onLink(next);
  };
  link({ kind: "connecting" });
  while (!signal.aborted) {
    const again = await once(run, signal, () => {
      failures = 0;
      since = 0;
      link({ kind: "live" });
    }).catch((error: unknown) => error as Error);
    if (again === "ended") return link({ kind: "ended" });
    if (again instanceof IllegalEvent || (again instanceof CallError && !again.passing)) {
      return link({ kind: "failed", error: again });
    }
    since ||= Date.now();
    link({ kind: "reconnecting", since, why: again instanceof Error ? again.message : again });
    await pause(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures), signal);
    failures += 1;
  }
}

/** One connection; returns "ended" or why it is to be opened again. */
async function once(run: Followed, outer: AbortSignal, alive: () => void): Promise<string> {
  const silence = new AbortController();
  let watchdog: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => silence.abort(new Error("nothing was heard for too long")), SILENCE_MS);
  };
  heard();
  try {
    for await (const { item } of run.open(run.seq(), AbortSignal.any([outer, silence.signal]))) {
      heard();
      if (item.case === undefined) return "the stream broke";
      if (item.case === "end") return "ended";
      if (item.case === "reconnect") return item.value.reason || "the server goes away";
      if (item.case === "event" && item.value.seq > run.seq()) run.onEvent(item.value);
      alive();
    }
    return "the stream ended without saying so";
  } finally {
    clearTimeout(watchdog);
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    const stop = () => {
      clearTimeout(timer);
      resolve();
    };
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop, { once: true });
  });
}
