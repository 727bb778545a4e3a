import { describe, expect, it } from "vitest";
import { scale } from "./timeline";

describe("the scale of a timeline", () => {
  it("is even while something happens", () => {
    const place = scale(0, 10_000, [{ from: 0, to: 10_000 }]);
    expect([place(0), place(5_000), place(10_000)]).toEqual([0, 0.5, 1]);
  });

  it("draws a long wait as two seconds", () => {
    const place = scale(0, 1_006_000, [
      { from: 0, to: 4_000 },
      { from: 1_004_000, to: 1_006_000 },
    ]);
    expect(place(4_000)).toBeCloseTo(0.5);
    expect(place(1_004_000)).toBeCloseTo(0.75);
    expect(place(1_006_000)).toBe(1);
  });

  it("never goes back", () => {
    const place = scale(0, 60_000, [
      { from: 1_000, to: 2_000 },
      { from: 40_000, to: 41_000 },
    ]);
    const places = Array.from({ length: 61 }, (_, second) => place(second * 1_000));
    expect(places).toEqual([...places].sort((one, other) => one - other));
  });
});
