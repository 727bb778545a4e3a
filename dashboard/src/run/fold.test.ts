import { readFileSync } from "node:fs";
import { create, fromJson, toJson } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { RunEventSchema, RunPhase } from "../gen/skyagent/run/v1/event_pb";
import { stateDigest } from "./digest";
import { fold, RunFold } from "./fold";
import { readJournal } from "./journal";

const golden = (name: string) => new URL(`../../../tests/golden/${name}`, import.meta.url);
const kept = JSON.parse(readFileSync(golden("digests.json"), "utf8")) as { digests: Record<string, string> };
const journal = (name: string) => readJournal(readFileSync(golden(`${name}.journal`)));

describe.each(Object.entries(kept.digests))("the golden journal %s", (name, digest) => {
  it("folds to the state that Python folds it to", () => {
    expect(stateDigest(fold(journal(name)))).toBe(digest);
  });
});

describe.each(["data_entry", "simulated"])("the journal %s, as REST brings it", (name) => {
  it("folds to the same state", () => {
    const events = journal(name).map((event) => fromJson(RunEventSchema, toJson(RunEventSchema, event)));
    expect(stateDigest(fold(events))).toBe(kept.digests[name]);
  });
});

describe("a fold", () => {
  it("goes on from a state that was kept", () => {
    const events = journal("data_entry");
    const half = new RunFold(fold(events.slice(0, 60)));
    for (const event of events.slice(60)) half.apply(event);
    expect(stateDigest(half.state)).toBe(kept.digests.data_entry);
  });

  it("refuses a gap", () => {
    const [first, , third] = journal("simulated");
    const run = new RunFold();
    if (first) run.apply(first);
    expect(() => third && run.apply(third)).toThrow("follows event 1");
  });

  it("refuses a kind of event that it does not know", () => {
    expect(() => fold([create(RunEventSchema, { seq: 1n })])).toThrow("unknown here");
  });

  it("ends as the run ended", () => {
    expect(fold(journal("data_entry")).phase).toBe(RunPhase.SUCCEEDED);
  });
});
