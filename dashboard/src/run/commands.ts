// What a person's command does to a run's state.
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { RetryPolicySchema } from "../gen/skyagent/run/v1/command_pb";
import type { CommandApplied } from "../gen/skyagent/run/v1/event_pb";
import type { RunState } from "../gen/skyagent/run/v1/state_pb";
import { copied } from "./messages";
import * as meters from "./meters";

export function commanded(state: RunState, { command }: CommandApplied): void {
  const kind = command?.kind;
  if (kind?.case === "pause") state.pauseWanted = true;
  if (kind?.case === "resume") state.pauseWanted = false;
  if (kind?.case === "cancel") {
    state.cancelWanted = true;
    state.cancelReason = kind.value.reason;
  }
  if (kind?.case === "steer") state.steering.push(kind.value.message);
  if (kind?.case === "priority") state.priority = kind.value.priority;
  if (kind?.case === "deadline") state.deadline = copied(TimestampSchema, kind.value.deadline);
  if (kind?.case === "fork") {
    state.forks.push(kind.value.runId);
    state.lineage ||= state.runId;
  }
  if (kind?.case === "budget") meters.toppedUp(state, kind.value.kind, kind.value.amount);
  if (kind?.case === "retry") state.retry = copied(RetryPolicySchema, kind.value);
}
