// The worker's own journal: which attempts were begun here, and what came of each. It makes an attempt execute at most
// once. One process holds the file for life: SQLite's exclusive lock, which the kernel drops when its holder dies. What a
// method wrote is on the disk (synchronous=FULL) when it returns.
import { randomUUID } from "node:crypto";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync, type SQLInputValue } from "node:sqlite";
import { create, fromBinary } from "@bufbuild/protobuf";
import { type Outcome, OutcomeSchema } from "../gen/skyagent/execution/v1/action_pb.js";
import type { EffectClass } from "../gen/skyagent/execution/v1/effect_pb.js";
import {
  type Fence,
  FenceSchema,
  HeldState,
  type StepKey,
  StepKeySchema,
} from "../gen/skyagent/execution/v1/worker_service_pb.js";
import { bytesOf, fenceOf, isLower, lost } from "./outcomes.ts";

const SCHEMA = `
CREATE TABLE IF NOT EXISTS journal (journal_id TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT PRIMARY KEY, generation INTEGER NOT NULL, epoch INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS steps (
  run_id TEXT, step_id TEXT, attempt INTEGER, generation INTEGER NOT NULL, epoch INTEGER NOT NULL,
  digest TEXT NOT NULL, effect_class INTEGER NOT NULL, state INTEGER NOT NULL, outcome BLOB,
  PRIMARY KEY (run_id, step_id, attempt)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs (
  run_id TEXT, step_id TEXT, attempt INTEGER, digest TEXT, data BLOB NOT NULL,
  PRIMARY KEY (run_id, step_id, attempt, digest)
) STRICT;
`;
const THIS = "run_id = ? AND step_id = ? AND attempt = ?";
const ENDED_RUNS_KEPT = 4096;

/** What is known of an attempt. Begun is RUNNING: only its own process can tell, so the next one says LOST. */
export interface Entry {
  readonly key: StepKey;
  readonly digest: string;
  readonly state: HeldState;
  readonly outcome?: Outcome;
}

/** Bytes that an outcome names. */
export interface Blob {
  readonly digest: string;
  readonly data: Uint8Array;
}

type Row = Record<string, SQLInputValue>;

export class Journal {
  readonly id: string;
  readonly #db: DatabaseSync;

  /** Throws when another process holds it. */
  constructor(folder: string) {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const path = join(folder, "journal-ts.db");
    this.#db = new DatabaseSync(path);
    try {
      this.#db.exec("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
      this.#db.exec(`BEGIN EXCLUSIVE; ${SCHEMA}; COMMIT`);
    } catch (error) {
      throw new Error(`${path} cannot be held (${error}): stop the worker that has it, or take another name`);
    }
    this.id = this.#identity();
    for (const row of this.#rows("SELECT * FROM steps WHERE state = ?", HeldState.RUNNING)) {
      // Whoever began these is dead, and how far it came is not known.
      const told = bytesOf(lost(Number(row["effect_class"]) as EffectClass));
      this.#run(
        `UPDATE steps SET state = ?, outcome = ? WHERE ${THIS}`,
        HeldState.LOST,
        told,
        ...place(entryOf(row).key),
      );
    }
  }

  find(key: StepKey): Entry | undefined {
    const [row] = this.#rows(`SELECT * FROM steps WHERE ${THIS}`, ...place(key));
    return row && entryOf(row);
  }

  /** Every attempt whose outcome is not known to be recorded. */
  held(): Entry[] {
    return this.#rows("SELECT * FROM steps WHERE state <> ?", HeldState.RELEASED).map(entryOf);
  }

  runs(): string[] {
    return this.#rows("SELECT DISTINCT run_id FROM steps LIMIT 4096").map((row) => String(row["run_id"]));
  }

  hasEnded(runId: string): boolean {
    return this.#rows("SELECT 1 FROM runs WHERE run_id = ? AND ended > 0", runId).length > 0;
  }

  /** Whether an owner asks that a later one has overtaken; a later one binds from now on. */
  isOvertaken(key: StepKey): boolean {
    const fence = fenceOf(key);
    const [row] = this.#rows("SELECT generation, epoch FROM runs WHERE run_id = ?", key.runId);
    if (row && isLower(fence, fenceFrom(row))) return true;
    const { logGeneration, epoch } = fence;
    const adopt = "ON CONFLICT DO UPDATE SET generation = excluded.generation, epoch = excluded.epoch";
    this.#together(() => {
      this.#run(`INSERT INTO runs VALUES (?, ?, ?, 0) ${adopt}`, key.runId, logGeneration, epoch);
      this.#run(`UPDATE steps SET generation = ?, epoch = ? WHERE ${THIS}`, logGeneration, epoch, ...place(key));
    });
    return false;
  }

  isStale(key: StepKey): boolean {
    const later = "SELECT 1 FROM steps WHERE run_id = ? AND step_id = ? AND attempt > ?";
    return this.#rows(later, ...place(key)).length > 0;
  }

  /** The one door to an effect. The key must be unknown. */
  begin(key: StepKey, digest: string, effectClass: EffectClass): void {
    this.#insert(key, digest, effectClass, HeldState.RUNNING, null);
  }

  /** This key never begins: its outcome is decided here. It must be unknown. */
  entomb(key: StepKey, outcome: Outcome, digest = "", effectClass = 0 as EffectClass): Entry {
    this.#insert(key, digest, effectClass, HeldState.TOMBSTONE, bytesOf(outcome));
    return { key, digest, state: HeldState.TOMBSTONE, outcome };
  }

  /** What came of a begun attempt, with the bytes that it names: both are there, or none. */
  finish(key: StepKey, outcome: Outcome, blobs: readonly Blob[]): Entry | undefined {
    this.#together(() => {
      for (const { digest, data } of blobs) {
        this.#run("INSERT OR IGNORE INTO blobs VALUES (?, ?, ?, ?, ?)", ...place(key), digest, data);
      }
      const done = `UPDATE steps SET state = ?, outcome = ? WHERE ${THIS}`;
      this.#run(done, HeldState.DONE, bytesOf(outcome), ...place(key));
    });
    return this.find(key);
  }

  blob(key: StepKey, digest: string): Uint8Array | undefined {
    const [row] = this.#rows(`SELECT data FROM blobs WHERE ${THIS} AND digest = ?`, ...place(key), digest);
    return row?.["data"] as Uint8Array | undefined;
  }

  /** The control plane has recorded it: only the key stays, so that it never executes again. */
  release(key: StepKey): void {
    const held = `${THIS} AND state <> ${HeldState.RUNNING}`;
    this.#together(() => {
      if (this.hasEnded(key.runId)) this.#run(`DELETE FROM steps WHERE ${held}`, ...place(key));
      else this.#run(`UPDATE steps SET state = ${HeldState.RELEASED}, outcome = NULL WHERE ${held}`, ...place(key));
      this.#run(`DELETE FROM blobs WHERE ${THIS}`, ...place(key));
    });
  }

  /** Nothing else ever forgets a key. The run is remembered a while, for an Assign that its end has overtaken. */
  endRun(runId: string): void {
    const ended = "INSERT INTO runs VALUES (?, 0, 0, ?) ON CONFLICT DO UPDATE SET ended = excluded.ended";
    const latest = "SELECT run_id FROM runs ORDER BY ended DESC LIMIT ?";
    this.#together(() => {
      this.#run("DELETE FROM steps WHERE run_id = ? AND state <> ?", runId, HeldState.RUNNING);
      this.#run("DELETE FROM blobs WHERE run_id = ?", runId);
      this.#run(ended, runId, Date.now());
      this.#run(`DELETE FROM runs WHERE ended > 0 AND run_id NOT IN (${latest})`, ENDED_RUNS_KEPT);
    });
  }

  close(): void {
    this.#db.close();
  }

  #identity(): string {
    const [row] = this.#rows("SELECT journal_id FROM journal");
    if (row) return String(row["journal_id"]);
    const id = randomUUID();
    this.#run("INSERT INTO journal VALUES (?)", id);
    return id;
  }

  #insert(key: StepKey, digest: string, effectClass: EffectClass, state: HeldState, outcome: Uint8Array | null): void {
    const { logGeneration, epoch } = fenceOf(key);
    this.#run(
      "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
      ...place(key),
      logGeneration,
      epoch,
      digest,
      effectClass,
      state,
      outcome,
    );
  }

  /** All of it or nothing. What storage throws ends the process, and with it the transaction. */
  #together(writes: () => void): void {
    this.#db.exec("BEGIN");
    writes();
    this.#db.exec("COMMIT");
  }

  #run(sql: string, ...values: SQLInputValue[]): void {
    this.#db.prepare(sql).run(...values);
  }

  #rows(sql: string, ...values: SQLInputValue[]): Row[] {
    return this.#db.prepare(sql).all(...values) as Row[];
  }
}

const place = (key: StepKey): [string, string, number] => [key.runId, key.stepId, key.attempt];

const fenceFrom = (row: Row): Fence =>
  create(FenceSchema, { logGeneration: BigInt(row["generation"] as number), epoch: BigInt(row["epoch"] as number) });

function entryOf(row: Row): Entry {
  const outcome = row["outcome"] as Uint8Array | null;
  return {
    key: create(StepKeySchema, {
      runId: String(row["run_id"]),
      stepId: String(row["step_id"]),
      attempt: Number(row["attempt"]),
      fence: fenceFrom(row),
    }),
    digest: String(row["digest"]),
    state: Number(row["state"]) as HeldState,
    ...(outcome && { outcome: fromBinary(OutcomeSchema, outcome) }),
  };
}
