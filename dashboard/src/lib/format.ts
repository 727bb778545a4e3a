// Numbers, times and sizes as people read them.
import type { Timestamp } from "@bufbuild/protobuf/wkt";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** Milliseconds since 1970; undefined for a time that is not set. */
export function millis(time: Timestamp | undefined): number | undefined {
  return time && Number(time.seconds) * 1000 + Math.floor(time.nanos / 1e6);
}

/** "42 s", "3 min 05 s", "2 h 10 min", "4 d". */
export function duration(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < MINUTE) return `${Math.floor(seconds)} s`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min ${two(seconds % MINUTE)} s`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ${two((seconds % HOUR) / MINUTE)} min`;
  return `${Math.floor(seconds / DAY)} d`;
}

/** "now", "42 s ago", "3 min ago", "2 h ago", "4 d ago". */
export function ago(then: number, now: number): string {
  const seconds = (now - then) / 1000;
  if (seconds < 2) return "now";
  if (seconds < MINUTE) return `${Math.floor(seconds)} s ago`;
  if (seconds < HOUR) return `${Math.floor(seconds / MINUTE)} min ago`;
  if (seconds < DAY) return `${Math.floor(seconds / HOUR)} h ago`;
  return `${Math.floor(seconds / DAY)} d ago`;
}

/** A clock time to the millisecond, in the reader's own zone. */
export function clock(milliseconds: number): string {
  const at = new Date(milliseconds);
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  return `${time}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** Date and time in full. */
export function exact(milliseconds: number): string {
  return new Date(milliseconds).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
}

export function bytes(count: bigint): string {
  const size = Number(count);
  if (size < 1000) return `${size} B`;
  if (size < 1e6) return `${(size / 1e3).toFixed(1)} kB`;
  return `${(size / 1e6).toFixed(1)} MB`;
}

/** 10000.00 from hundredths, with separators. */
export function cents(amount: bigint): string {
  const whole = (amount / 100n).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  return `${whole}.${two(Number(amount % 100n))}`;
}

/** "b3:18a9…8b335" */
export function shortDigest(digest: string): string {
  return digest.length > 20 ? `${digest.slice(0, 11)}…` : digest;
}

/** "Fill form" from "fillForm" or "FILL_FORM". */
export function words(name: string): string {
  const spaced = name
    .replace(/([a-z])([A-Z])/g, "$1 $2")
    .replaceAll("_", " ")
    .toLowerCase();
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}

function two(number: number): string {
  return String(Math.floor(number)).padStart(2, "0");
}
