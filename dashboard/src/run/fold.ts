// The fold of a run's journal: the twin of control/core/run.py. The same events give the same RunState, byte for byte.
import { create } from "@bufbuild/protobuf";
import { type RunEvent, RunPhase } from "../gen/skyagent/run/v1/event_pb";
import {
  type ApprovalRecord,
  type AttemptRecord,
  AttemptRecordSchema,
  type RunState,
  RunStateSchema,
} from "../gen/skyagent/run/v1/state_pb";
import { advance } from "./advance";
import { timeOf } from "./messages";
import { passed, stepEnded } from "./meters";
import { IllegalEvent, Plan } from "./plan";

/** The blocked reason of a run that can only go on once a person has answered. */
export const WAITING_FOR_PERSON = "WAITING_FOR_PERSON";

/** The blocked reason of a run that has used up what it may use; it goes on by itself once it may use more. */
export const BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED";

const TERMINAL: ReadonlySet<RunPhase> = new Set([RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.CANCELLED]);

/** Whether a run in this phase has ended for good. */
export const terminal = (phase: RunPhase): boolean => TERMINAL.has(phase);

/** Folds a whole journal. */
export function fold(events: Iterable<RunEvent>): RunState {
  const folded = new RunFold();
  for (const event of events) folded.apply(event);
  return folded.state;
}

/** A run's state, advanced event by event. Its messages are changed in place. */
export class RunFold {
  plan: Plan;

  constructor(readonly state: RunState = create(RunStateSchema)) {
    this.plan = new Plan(state);
  }

  /** Looks at the plan anew, once nodes came into the state by themselves. */
  reindex(): void {
    this.plan = new Plan(this.state);
  }

  /** Advances the state by one event; throws IllegalEvent when it is not the next one, or of an unknown kind. */
  apply(event: RunEvent): void {
    const { state } = this;
    const kind = event.body?.kind;
    if (event.seq !== state.seq + 1n) {
      throw new IllegalEvent("JOURNAL_GAP", `event ${event.seq} of run ${event.runId} follows event ${state.seq}`);
    }
    if (!kind?.case && !event.erased) {
      throw new IllegalEvent("UNKNOWN_EVENT", `event ${event.seq} of run ${event.runId} is of a kind unknown here`);
    }
    passed(state, event);
    state.runId = event.runId;
    state.seq = event.seq;
    state.epoch = event.epoch;
    state.updateTime = timeOf(event);
    if (kind?.case) advance(this, kind, event);
    state.phase = this.#phase();
  }

  attempt(stepId: string, number: number): AttemptRecord {
    const { attempts } = this.plan.node(stepId);
    if (number === attempts.length + 1) attempts.push(create(AttemptRecordSchema, { attempt: number }));
    const found = attempts[number - 1];
    if (found) return found;
    throw new IllegalEvent("ATTEMPT_GAP", `step ${stepId} has ${attempts.length} attempts and none numbered ${number}`);
  }

  approval(id: string): ApprovalRecord {
    const found = this.state.approvals.find((approval) => approval.approvalId === id);
    if (found) return found;
    throw new IllegalEvent("UNKNOWN_APPROVAL", `run ${this.state.runId} never asked '${id}'`);
  }

  close(attempt: AttemptRecord, spent = 1n): void {
    this.plan.counts.openIntents -= Number(attempt.open);
    if (attempt.open) stepEnded(this.state, spent);
    attempt.open = false;
  }

  #phase(): RunPhase {
    const { state } = this;
    if (terminal(state.phase)) return state.phase;
    if (state.cancelWanted) return RunPhase.CANCELLING;
    if (state.pauseWanted) return state.counts?.openIntents ? RunPhase.PAUSING : RunPhase.PAUSED;
    if (state.blockedReason === WAITING_FOR_PERSON || state.blockedReason === BUDGET_EXHAUSTED) return RunPhase.WAITING;
    return state.nodeId ? RunPhase.RUNNING : RunPhase.QUEUED;
  }
}
