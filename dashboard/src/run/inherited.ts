// What a fork takes over from the run that it grows from.
import { create, mergeFromBinary } from "@bufbuild/protobuf";
import { OutcomeSchema } from "../gen/skyagent/execution/v1/action_pb";
import { EffectClass } from "../gen/skyagent/execution/v1/effect_pb";
import {
  type BegunElsewhere,
  NodeState,
  type OutcomeInherited,
  type RunEvent,
  type StateInherited,
} from "../gen/skyagent/run/v1/event_pb";
import { RunStateSchema } from "../gen/skyagent/run/v1/state_pb";
import type { RunFold } from "./fold";
import { timeOf } from "./messages";
import { stepOf } from "./tree";

export function state(folded: RunFold, body: StateInherited, event: RunEvent): void {
  const { state } = folded;
  state.planningOpen = false;
  mergeFromBinary(RunStateSchema, state, body.state);
  state.inheritedSeq = event.seq;
  if (!body.more) folded.reindex();
}

export function outcome(folded: RunFold, body: OutcomeInherited, event: RunEvent): void {
  folded.attempt(body.stepId, body.attempt).finishedSeq = event.seq;
}

export function begunElsewhere(folded: RunFold, body: BegunElsewhere, event: RunEvent): void {
  const record = folded.plan.node(body.stepId);
  const attempt = folded.attempt(body.stepId, body.attempt);
  const outcome = body.outcome ?? create(OutcomeSchema);
  folded.close(attempt);
  attempt.effectClass = stepOf(record)?.action?.effectClass ?? EffectClass.UNSPECIFIED;
  attempt.status = outcome.status;
  attempt.effect = outcome.effect;
  attempt.message = outcome.message;
  attempt.outcomeReason = outcome.reason;
  attempt.finishedSeq = event.seq;
  attempt.finishTime = timeOf(event);
  attempt.begunBy = body.runId;
  attempt.begunNumber = body.number;
  folded.plan.set(record, NodeState.CHECKING);
}
