import { create } from "@bufbuild/protobuf";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { RunEventSchema } from "../gen/skyagent/run/v1/event_pb";
import { type WatchRunResponse, WatchRunResponseSchema } from "../gen/skyagent/run/v1/run_service_pb";
import { CallError } from "../lib/errors";
import { follow, type Link, SILENCE_MS } from "./follow";

type Item = WatchRunResponse["item"];
const event = (seq: bigint): Item => ({ case: "event", value: create(RunEventSchema, { seq }) });
const END = create(WatchRunResponseSchema, { item: { case: "end", value: {} } }).item;
const AGAIN = create(WatchRunResponseSchema, { item: { case: "reconnect", value: { reason: "DRAINING" } } }).item;

/** A server that answers each watch in turn with these items, then an error, or silence. */
async function followed(...answers: readonly (readonly (Item | Error | "silence")[])[]) {
  const asked: bigint[] = [];
  const seen: bigint[] = [];
  const links: Link[] = [];
  const following = follow(
    {
      async *open(afterSeq, signal) {
        const answer = answers[asked.length] ?? [END];
        asked.push(afterSeq);
        for (const item of answer) {
          if (item instanceof Error) throw item;
          if (item === "silence") {
            await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
          } else yield create(WatchRunResponseSchema, { item });
        }
      },
      seq: () => seen.at(-1) ?? 0n,
      onEvent: ({ seq }) => seen.push(seq),
      onLink: (link) => links.push(link),
    },
    new AbortController().signal,
  );
  await vi.runAllTimersAsync();
  await following;
  return { asked, seen, links: links.map(({ kind }) => kind), last: links.at(-1) };
}

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  vi.useRealTimers();
});

describe("following a run", () => {
  it("asks again after the last event when the connection breaks, and shows each event once", async () => {
    const { asked, seen } = await followed([event(1n), event(2n)], [event(2n), event(3n), END]);
    expect(asked).toEqual([0n, 2n]);
    expect(seen).toEqual([1n, 2n, 3n]);
  });

  it("says how it stands", async () => {
    const { links } = await followed([event(1n), AGAIN], [event(2n), END]);
    expect(links).toEqual(["connecting", "live", "reconnecting", "live", "ended"]);
  });

  it("does not trust a stream that brings nothing", async () => {
    const began = Date.now();
    const { asked, links } = await followed([event(1n), "silence"]);
    expect(Date.now() - began).toBeGreaterThanOrEqual(SILENCE_MS);
    expect(asked).toEqual([0n, 1n]);
    expect(links.at(-1)).toBe("ended");
  });

  it("goes on when the gateway is away", async () => {
    const away = new CallError("no", 503, "UNAVAILABLE", "", "");
    expect((await followed([away], [away], [event(1n), END])).seen).toEqual([1n]);
  });

  it("stops at what asking again cannot help", async () => {
    const unknown = new CallError("no such run", 404, "NOT_FOUND", "RUN_NOT_FOUND", "r-1");
    const { asked, last } = await followed([unknown]);
    expect(asked).toHaveLength(1);
    expect(last).toEqual({ kind: "failed", error: unknown });
  });
});
