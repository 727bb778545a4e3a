import { describe, expect, it } from "vitest";
import { CallError, errorOf } from "./errors";
import { ago, bytes, cents, duration, millis, words } from "./format";
import { serverSentEvents } from "./sse";

async function received(...pieces: string[]): Promise<string[]> {
  const encoder = new TextEncoder();
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(encoder.encode(piece));
      controller.close();
    },
  });
  const found: string[] = [];
  for await (const data of serverSentEvents(body)) found.push(data);
  return found;
}

describe("server-sent events", () => {
  it("arrive whole, however they are cut", async () => {
    expect(await received('data: {"a"', ':1}\n\ndata: {"b":2}', "\n", "\n")).toEqual(['{"a":1}', '{"b":2}']);
  });

  it("leave out what the stream broke off in", async () => {
    expect(await received("data: 1\n\ndata: 2")).toEqual(["1"]);
  });

  it("skip comments, which only keep a connection open", async () => {
    expect(await received(": still here\n\ndata: 1\n\n")).toEqual(["1"]);
  });
});

describe("an error", () => {
  it("tells code, reason and request of what the services answered", async () => {
    const body = { code: 5, message: "no such run", details: [{ reason: "RUN_NOT_FOUND" }] };
    const answer = new Response(JSON.stringify(body), { status: 404, headers: { "x-request-id": "r-1" } });
    const error = await errorOf(answer);
    expect(error).toMatchObject({ code: "NOT_FOUND", reason: "RUN_NOT_FOUND", requestId: "r-1", passing: false });
  });

  it("is told even when the answer is no JSON", async () => {
    const error = await errorOf(new Response("upstream connect error", { status: 503 }));
    expect(error).toBeInstanceOf(CallError);
    expect(error).toMatchObject({ message: "upstream connect error", passing: true });
  });
});

describe("what people read", () => {
  it.each([
    [0, "0 ms"],
    [834, "834 ms"],
    [9_450, "9.4 s"],
    [59_999, "59 s"],
    [185_000, "3 min 05 s"],
    [7_800_000, "2 h 10 min"],
    [400_000_000, "4 d"],
  ])("a duration of %i ms is %s", (milliseconds, text) => {
    expect(duration(milliseconds)).toBe(text);
  });

  it("an age", () => {
    expect([ago(0, 1_000), ago(0, 42_000), ago(0, 3_700_000)]).toEqual(["now", "42 s ago", "1 h ago"]);
  });

  it("sizes, money and names", () => {
    expect([bytes(999n), bytes(48_800n), cents(2_568_388n), cents(5n)]).toEqual([
      "999 B",
      "48.8 kB",
      "25,683.88",
      "0.05",
    ]);
    expect([words("stepFinished"), words("FALSE_SUCCESS")]).toEqual(["Step finished", "False success"]);
  });

  it("a time in milliseconds, and none when it is not set", () => {
    const time = { $typeName: "google.protobuf.Timestamp", seconds: 3n, nanos: 250_000_000 } as const;
    expect([millis(time), millis(undefined)]).toEqual([3_250, undefined]);
  });
});
