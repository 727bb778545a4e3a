// A run as this page knows it: its fold and its events, kept up to date while somebody looks.
import type { Outcome } from "../gen/skyagent/execution/v1/action_pb";
import type { RunEvent } from "../gen/skyagent/run/v1/event_pb";
import type { Client } from "../lib/client";
import { RunFold } from "./fold";
import { follow, type Link } from "./follow";

/** Several events are shown at once, as fast as a person can see. */
const REDRAW_MS = 60;

export class RunFeed {
  readonly fold = new RunFold();
  readonly events: RunEvent[] = [];
  link: Link = { kind: "connecting" };
  /** When the last event arrived here; 0 before the first. */
  heardAt = 0;

  readonly #byNode = new Map<string, RunEvent[]>();
  readonly #listeners = new Set<() => void>();
  #version = 0;
  #redraw: ReturnType<typeof setTimeout> | undefined;
  #stop: AbortController | undefined;

  constructor(
    readonly runId: string,
    private readonly client: Client,
  ) {}

  /** Follows the run until stopped, from where it was stopped before. */
  start(): void {
    if (this.#stop || this.link.kind === "ended") return;
    this.#stop = new AbortController();
    void follow(
      {
        open: (afterSeq, signal) => this.client.watchRun(this.runId, afterSeq, signal),
        seq: () => this.fold.state.seq,
        onEvent: (event) => this.#take(event),
        onLink: (link) => this.#linked(link),
      },
      this.#stop.signal,
    );
  }

  stop(): void {
    this.#stop?.abort();
    this.#stop = undefined;
    if (this.link.kind !== "ended" && this.link.kind !== "failed") this.#linked({ kind: "hidden" });
  }

  retry(): void {
    this.stop();
    this.start();
  }

  subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };

  version = (): number => this.#version;

  /** The events about a node of the plan. */
  eventsOf(nodeId: string): readonly RunEvent[] {
    return this.#byNode.get(nodeId) ?? [];
  }

  /** What came of an attempt, in full. */
  outcome(stepId: string, attempt: number): Outcome | undefined {
    const found = this.eventsOf(stepId).findLast(({ body }) => {
      return body?.kind.case === "stepFinished" && body.kind.value.attempt === attempt;
    });
    return found?.body?.kind.case === "stepFinished" ? found.body.kind.value.outcome : undefined;
  }

  #take(event: RunEvent): void {
    this.fold.apply(event);
    this.events.push(event);
    for (const id of nodesOf(event)) {
      const known = this.#byNode.get(id);
      if (known) known.push(event);
      else this.#byNode.set(id, [event]);
    }
    this.heardAt = Date.now();
    this.#changed();
  }

  #linked(link: Link): void {
    if (link.kind === "live" && this.link.kind === "live") return;
    this.link = link;
    this.#changed();
  }

  #changed(): void {
    this.#redraw ??= setTimeout(() => {
      this.#redraw = undefined;
      this.#version += 1;
      for (const listener of this.#listeners) listener();
    }, REDRAW_MS);
  }
}

/** The nodes of the plan that an event is about. */
export function nodesOf({ body }: RunEvent): readonly string[] {
  const kind = body?.kind;
  if (!kind?.case) return [];
  if (kind.case === "planExtended") return kind.value.nodes.map((node) => node.nodeId);
  if ("stepId" in kind.value && kind.value.stepId) return [kind.value.stepId];
  if ("nodeId" in kind.value && kind.case !== "ownerChanged") return [kind.value.nodeId];
  return [];
}
