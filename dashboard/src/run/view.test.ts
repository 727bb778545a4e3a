import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { RunFold } from "./fold";
import { readJournal } from "./journal";
import { isProbe, nodeId, planned } from "./tree";
import { caughtFalse, currentStep, pictureBefore, probesOf, recordGroups, rows, wasFalse } from "./view";

const events = readJournal(readFileSync(new URL("../../../tests/golden/data_entry.journal", import.meta.url)));

function upTo(seq: number): RunFold {
  const run = new RunFold();
  for (const event of events.slice(0, seq)) run.apply(event);
  return run;
}

const plain = { toggled: new Map<string, boolean>(), filter: "", shown: "" };
const titles = (run: RunFold, how = plain) => rows(run.plan, how).map(({ record }) => planned(record).title);

describe("the lines of a plan", () => {
  it("fold away what succeeded and show what is under way", () => {
    const lines = titles(upTo(45));
    expect(lines.filter((title) => title === "Save the record")).toHaveLength(1);
    expect(lines).not.toContain("Open the sign-in page");
  });

  it("put a probe below the step that it asks about", () => {
    const lines = titles(upTo(52));
    expect(lines[lines.indexOf("Save the record") + 1]).toBe("Ask the application again");
  });

  it("lead to the step that is looked at", () => {
    const run = upTo(events.length);
    const step = run.state.nodes.find((record) => planned(record).title === "Open the sign-in page");
    expect(titles(run)).not.toContain("Open the sign-in page");
    expect(titles(run, { ...plain, shown: step ? nodeId(step) : "" })).toContain("Open the sign-in page");
  });

  it("keep only what a filter names, and what leads there", () => {
    expect(titles(upTo(events.length), { ...plain, filter: "sign-in page is gone" })).toEqual([
      "Sign in",
      "Send them and see that the sign-in page is gone",
    ]);
  });
});

describe("a false success", () => {
  const run = upTo(events.length);
  const lied = run.state.nodes.filter(caughtFalse);

  it("is found at the one step where the page lied", () => {
    expect(lied.map((record) => planned(record).title)).toEqual(["Save the record"]);
    expect(lied[0]?.attempts.map(wasFalse)).toEqual([true, false]);
  });

  it("names the probe that caught it", () => {
    const attempt = lied[0]?.attempts[0];
    const probes = attempt ? probesOf(run.plan, attempt) : [];
    expect(probes.length).toBeGreaterThan(0);
    expect(probes.every(isProbe)).toBe(true);
  });
});

describe("what is shown of a run under way", () => {
  it("is the step that waits for a person", () => {
    const current = currentStep(upTo(107).state);
    expect(current && planned(current).title).toBe("Save the record");
  });

  it("is the last picture before an attempt", () => {
    const run = upTo(28);
    const before = pictureBefore(run.state, 28n);
    const opened = run.state.nodes.find((record) => record.attempts.at(-1)?.finishedSeq === 25n);
    expect(before?.digest).toBe(opened?.attempts[0]?.blobs[0]?.digest);
  });

  it("counts every record of the inputs", () => {
    expect(recordGroups(upTo(30).state)).toHaveLength(4);
  });
});
