// A worker from its first dialling to its Goodbye. It has one thread, and its journal writes before it returns: between
// two frames everything is settled.
import { setTimeout as sleep } from "node:timers/promises";
import { create, fromBinary } from "@bufbuild/protobuf";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { type Action, ActionSchema, type Outcome } from "../gen/skyagent/execution/v1/action_pb.js";
import { Effect, EffectClass } from "../gen/skyagent/execution/v1/effect_pb.js";
import {
  type Assign,
  type Cancel,
  type ControlResponse,
  type Drain,
  HeldState,
  HelloSchema,
  type StepKey,
  type Welcome,
} from "../gen/skyagent/execution/v1/worker_service_pb.js";
import { execute, objectionTo, OFFERED } from "./actions.ts";
import type { Entry, Journal } from "./journal.ts";
import { cancelled, digestOf, fenceOf, isLower, isWhole, type Name, nameOf, refused } from "./outcomes.ts";
import { readToken, type Settings } from "./settings.ts";
import { Stream } from "./stream.ts";

const FIRST_WAIT = 50; // milliseconds before dialling again; doubles
const LONGEST_WAIT = 2_000;
const WELCOME_MS = 10_000;
const GOODBYE_MS = 2_000;
const UPLOAD_RETRY_MS = 1_000;

/** An attempt in this process. */
interface Running {
  key: StepKey;
  readonly digest: string;
  readonly stop: AbortController;
}

export class Worker {
  readonly #settings: Settings;
  readonly #journal: Journal;
  readonly #incarnation = crypto.randomUUID();
  readonly #running = new Map<Name, Running>();
  readonly #idle: (() => void)[] = []; // called once nothing runs and nothing is held
  #addresses: string[];
  #stream: Stream | undefined;
  #credit = 0;
  #leaseEnds = 0;
  #asked: number[] = []; // when each unanswered heartbeat was sent
  #beating: NodeJS.Timeout | undefined;
  #draining = false;
  #left = false;

  constructor(settings: Settings, journal: Journal) {
    this.#settings = settings;
    this.#journal = journal;
    this.#addresses = [settings.connect];
  }

  /** Works until `drain` has let it leave; throws when the control plane will never take it. */
  async run(): Promise<void> {
    for (let failures = 0; !this.#left; ) {
      const dialled = performance.now();
      const end = await this.#converse(this.#addresses[0] ?? this.#settings.connect);
      if (end.final) throw new Error(end.message);
      if (end.inOrder || performance.now() - dialled > LONGEST_WAIT) failures = 0;
      if (!end.inOrder) this.#addresses.push(...this.#addresses.splice(0, 1));
      if (this.#left) return;
      console.error(`disconnected: ${end.message}`);
      await sleep(Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** failures++) * (0.5 + Math.random() / 2));
    }
  }

  /** Lets what runs end, takes nothing new, and leaves once everything is recorded. */
  async drain(graceMs: number): Promise<void> {
    if (this.#draining) return;
    this.#draining = true;
    const until = performance.now() + graceMs;
    if (!(await this.#within(graceMs, () => this.#running.size === 0))) this.#stopAll("the worker is stopping");
    const left = Math.max(GOODBYE_MS, until - performance.now());
    await this.#within(left, () => this.#running.size === 0 && this.#journal.held().length === 0);
    this.#left = true;
    await this.#leave("the worker is stopping");
  }

  async #converse(address: string) {
    const askedAt = performance.now();
    const stream = new Stream(address, readToken(this.#settings), (frame) => {
      if (frame.frame.case === "welcome") this.#welcome(stream, frame.frame.value, askedAt);
      else if (this.#stream === stream) this.#apply(frame);
      else stream.cut(); // the first frame must be Welcome
    });
    stream.greet(this.#hello());
    const patience = setTimeout(() => this.#stream !== stream && stream.cut(), WELCOME_MS);
    const end = await stream.ended;
    clearTimeout(patience);
    clearTimeout(this.#beating);
    this.#stream = undefined;
    return end;
  }

  #hello() {
    const { workerId, kind, slots } = this.#settings;
    return create(HelloSchema, {
      workerId,
      incarnationId: this.#incarnation,
      journalId: this.#journal.id,
      protocolVersion: 2,
      held: this.#journal.held().map(({ key, state, digest }) => ({ key, state, actionDigest: digest })),
      capabilities: {
        kind,
        actions: OFFERED,
        maxConcurrentSteps: slots,
        residentRuns: this.#journal.runs(),
        version: "typescript/1",
        exactActions: true,
      },
    });
  }

  #welcome(stream: Stream, welcome: Welcome, askedAt: number): void {
    this.#stream = stream;
    this.#credit = 0;
    this.#asked = [];
    this.#extend(askedAt, welcome.leaseTtl);
    for (const runId of welcome.endedRuns) this.#endRun(runId);
    for (const entry of this.#journal.held()) if (entry.state !== HeldState.RUNNING) void this.#deliver(entry);
    this.#topUp();
    this.#beat(stream, welcome.heartbeatInterval ? durationMs(welcome.heartbeatInterval) : 2_000);
    console.error(`connected to ${welcome.nodeId}`);
  }

  #apply({ frame }: ControlResponse): void {
    switch (frame.case) {
      case "assign":
        if (!isWhole(frame.value.key)) return;
        this.#credit = Math.max(0, this.#credit - 1);
        this.#assign(frame.value, frame.value.key);
        return this.#topUp();
      case "cancel":
        if (isWhole(frame.value.key)) this.#cancel(frame.value, frame.value.key);
        return;
      case "inspect":
        if (isWhole(frame.value.key)) this.#inspect(frame.value.key);
        return;
      case "renewed":
        return this.#extend(this.#asked.shift(), frame.value.leaseTtl);
      case "resultRecorded":
        if (frame.value.key) this.#journal.release(frame.value.key);
        return this.#settle();
      case "resultRefused": {
        const entry = frame.value.key && this.#journal.find(frame.value.key);
        if (entry?.outcome) void this.#deliver(entry);
        return;
      }
      case "runEnded":
        return this.#endRun(frame.value.runId);
      case "drain":
        return this.#onDrain(frame.value);
      case "alternates":
        this.#addresses = [
          ...new Set([...this.#addresses.slice(0, 1), ...frame.value.addresses, this.#settings.connect]),
        ];
        return;
    } // anything else is of a later version
  }

  /** In the order of the protocol: what is known never executes, whoever asks. */
  #assign(assign: Assign, key: StepKey): void {
    const known = this.#journal.find(key);
    if (known) {
      const other = known.digest !== "" && known.digest !== assign.actionDigest;
      if (other) return this.#say(key, this.#otherAction(known, assign.actionDigest), known.digest);
      this.#journal.isOvertaken(key); // a known key adopts the fence, and no lower one takes anything back
      return this.#tell(key);
    }
    if (this.#journal.hasEnded(key.runId))
      return this.#say(key, refused("RUN_ENDED", "the run has ended"), assign.actionDigest);
    if (this.#journal.isOvertaken(key)) return this.#state(key, HeldState.NEVER_BEGUN);
    const action = actionOf(assign);
    const objection = this.#objection(assign, key, action);
    const effectClass = action?.effectClass ?? EffectClass.UNSPECIFIED;
    if (objection || !action) {
      const outcome = objection ?? refused("INVALID_ACTION", "the bytes are no action");
      return void this.#deliver(this.#journal.entomb(key, outcome, assign.actionDigest, effectClass));
    }
    this.#journal.begin(key, assign.actionDigest, effectClass);
    void this.#carryOut(assign, action, key);
  }

  #objection(assign: Assign, key: StepKey, action: Action | undefined): Outcome | undefined {
    if (this.#draining) return refused("DRAINING", "the worker is stopping: assign this to another");
    if (this.#journal.isStale(key)) return refused("STALE_ATTEMPT", "a later attempt of this step is known");
    const digest = digestOf(assign.actionBytes);
    if (digest !== assign.actionDigest) return refused("DIGEST_MISMATCH", `the action has digest ${digest}`);
    if (!action?.kind.case || !action.effectClass) return refused("INVALID_ACTION", "the bytes are no whole action");
    const unable = objectionTo(action);
    if (unable) return refused("UNSUPPORTED_ACTION", unable);
    if (assign.deadline && timestampMs(assign.deadline) <= Date.now())
      return refused("DEADLINE_PASSED", "the deadline had passed");
    if (performance.now() >= this.#leaseEnds)
      return refused("LEASE_ENDED", "the lease had ended before this could begin");
    return undefined;
  }

  async #carryOut(assign: Assign, action: Action, key: StepKey): Promise<void> {
    const running = { key, digest: assign.actionDigest, stop: new AbortController() };
    this.#running.set(nameOf(key), running);
    this.#stream?.send({ case: "stepAccepted", value: { key } });
    const { witness } = this.#settings;
    const done = await execute(action, { allowedHosts: assign.allowedHosts, witness, signal: running.stop.signal });
    const entry = this.#journal.finish(running.key, done.outcome, done.blobs);
    this.#running.delete(nameOf(key));
    if (entry) void this.#deliver(entry);
    if (this.#journal.hasEnded(key.runId)) this.#endRun(key.runId);
    this.#topUp();
    this.#settle();
  }

  #cancel(cancel: Cancel, key: StepKey): void {
    const running = this.#running.get(nameOf(key));
    const why = cancel.reason || "no reason given";
    if (running && isLower(fenceOf(key), fenceOf(running.key))) return this.#inspect(key);
    if (running) {
      setTimeout(() => running.stop.abort(why), cancel.grace ? durationMs(cancel.grace) : 0).unref();
    } else if (this.#journal.find(key)) {
      this.#tell(key);
    } else if (this.#journal.hasEnded(key.runId)) {
      this.#say(key, cancelled(Effect.NONE, why), "");
    } else if (this.#journal.isOvertaken(key)) {
      this.#state(key, HeldState.NEVER_BEGUN);
    } else {
      void this.#deliver(this.#journal.entomb(key, cancelled(Effect.NONE, why)));
    }
  }

  #inspect(key: StepKey): void {
    if (!this.#journal.hasEnded(key.runId)) this.#journal.isOvertaken(key); // its fence binds from now on
    const entry = this.#journal.find(key);
    this.#state(entry?.key ?? key, entry?.state ?? HeldState.NEVER_BEGUN, entry?.outcome);
  }

  #endRun(runId: string): void {
    for (const { key, stop } of this.#running.values()) if (key.runId === runId) stop.abort("the run has ended");
    this.#journal.endRun(runId);
    this.#settle();
  }

  #onDrain(drain: Drain): void {
    const grace = drain.deadline ? Math.max(0, timestampMs(drain.deadline) - Date.now()) : this.#settings.drainMs;
    if (drain.alternates.length === 0) return void this.drain(Math.min(grace, this.#settings.drainMs));
    this.#addresses = [...new Set([...drain.alternates, ...this.#addresses])];
    void this.#leave("moving to another node"); // what runs goes along
  }

  /** What is known of an attempt: its result when there is one to report, else its state. */
  #tell(key: StepKey): void {
    const entry = this.#journal.find(key);
    if (entry?.outcome) void this.#deliver(entry);
    else if (entry) this.#state(entry.key, entry.state);
  }

  /** The bytes first, then the outcome that names them. What this stream does not get through, the next one does. */
  async #deliver(entry: Entry): Promise<void> {
    const stream = this.#stream;
    for (const ref of entry.outcome?.blobs ?? []) {
      for (let stored = false; !stored; ) {
        const data = this.#journal.blob(entry.key, ref.digest);
        if (!stream || stream !== this.#stream || !data) return;
        stored = await stream.putBlob(ref, data).then(
          () => true,
          () => sleep(UPLOAD_RETRY_MS, false),
        );
      }
    }
    if (entry.outcome && stream === this.#stream) this.#say(entry.key, entry.outcome, entry.digest);
  }

  #otherAction(known: Entry, asked: string): Outcome {
    const outcome = refused("DIGEST_MISMATCH", `this attempt is known with action ${known.digest}, not ${asked}`);
    if (known.state !== HeldState.TOMBSTONE) outcome.effect = Effect.UNKNOWN; // of what the key is known for
    return outcome;
  }

  #say(key: StepKey, outcome: Outcome, actionDigest: string): void {
    this.#stream?.send({ case: "stepResult", value: { key, outcome, actionDigest } });
  }

  #state(key: StepKey, state: HeldState, outcome?: Outcome): void {
    this.#stream?.send({ case: "stepState", value: { key, state, ...(outcome && { outcome }) } });
  }

  /** Asks for as much work as there is room for. */
  #topUp(): void {
    const room = this.#settings.slots - this.#running.size - this.#credit;
    if (this.#draining || room <= 0 || !this.#stream) return;
    this.#credit += room;
    this.#stream.send({ case: "credit", value: { steps: room } });
  }

  #beat(stream: Stream, interval: number): void {
    this.#beating = setTimeout(() => {
      if (performance.now() >= this.#leaseEnds) return stream.cut(); // the other side is silent: dial again
      this.#asked.push(performance.now());
      stream.send({ case: "heartbeat", value: { running: [...this.#running.values()].map(({ key }) => key) } });
      this.#beat(stream, interval);
    }, interval);
  }

  /** A lease counts from when it was asked for, not from the answer. */
  #extend(askedAt: number | undefined, ttl: Welcome["leaseTtl"]): void {
    if (askedAt !== undefined && ttl) this.#leaseEnds = Math.max(this.#leaseEnds, askedAt + durationMs(ttl));
  }

  #stopAll(why: string): void {
    for (const { stop } of this.#running.values()) stop.abort(why);
  }

  async #leave(reason: string): Promise<void> {
    const stream = this.#stream;
    if (!stream) return;
    stream.send({ case: "goodbye", value: { reason } });
    stream.finish();
    await Promise.race([stream.ended, sleep(GOODBYE_MS)]);
    stream.cut();
  }

  #settle(): void {
    for (const look of this.#idle.splice(0)) look();
  }

  /** Whether it became true in that time; looked at whenever something ended or was recorded. */
  async #within(ms: number, isTrue: () => boolean): Promise<boolean> {
    const until = performance.now() + ms;
    while (!isTrue() && performance.now() < until) {
      const change = new Promise<void>((resolve) => this.#idle.push(resolve));
      await Promise.race([change, sleep(until - performance.now())]);
    }
    return isTrue();
  }
}

/** From the very bytes that the digest is of. */
function actionOf(assign: Assign): Action | undefined {
  try {
    return fromBinary(ActionSchema, assign.actionBytes);
  } catch {
    return undefined;
  }
}
