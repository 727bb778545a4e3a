// What each kind of event does to a run's state: the twin of the methods of RunFold in control/core/run.py.
import { create } from "@bufbuild/protobuf";
import { TimestampSchema } from "@bufbuild/protobuf/wkt";
import { OutcomeSchema, OutcomeStatus, type SessionState } from "../gen/skyagent/execution/v1/action_pb";
import { Effect } from "../gen/skyagent/execution/v1/effect_pb";
import { MissionSpecSchema } from "../gen/skyagent/mission/v1/mission_pb";
import { DecisionSchema } from "../gen/skyagent/policy/v1/decision_pb";
import { ApprovalState, type EventBody, NodeState, type RunEvent } from "../gen/skyagent/run/v1/event_pb";
import { Holds } from "../gen/skyagent/run/v1/plan_pb";
import { ApprovalRecordSchema, NodeRecordSchema, type RunState } from "../gen/skyagent/run/v1/state_pb";
import { commanded } from "./commands";
import type { RunFold } from "./fold";
import * as inherited from "./inherited";
import { copied, timeOf } from "./messages";
import * as meters from "./meters";
import { isProbe, nodeId } from "./tree";

/** What happened, with its kind. */
export type Happening = Exclude<EventBody["kind"], { case: undefined }>;
type Kind = Happening["case"];
type BodyOf<K extends Kind> = Extract<Happening, { case: K }>["value"];
type Advance<K extends Kind> = (folded: RunFold, body: BodyOf<K>, event: RunEvent) => void;

/** Lets one event change the state; the kinds that are missing below are evidence, and change nothing. */
export function advance(folded: RunFold, { case: kind, value }: Happening, event: RunEvent): void {
  (ADVANCE[kind] as Advance<Kind> | undefined)?.(folded, value, event);
}

function sessionKept(state: RunState, session: SessionState): void {
  const at = state.sessions.findIndex((kept) => kept.sessionId === session.sessionId);
  if (at < 0) state.sessions.push(session);
  else state.sessions[at] = session;
}

const ADVANCE: { readonly [K in Kind]?: Advance<K> } = {
  runCreated({ state }, body, event) {
    state.missionId = body.missionId;
    state.tenant = body.tenant;
    state.actor = body.actor;
    state.templateVersion = body.templateVersion;
    state.foldVersion = body.foldVersion;
    state.ordinal = body.ordinal;
    state.spec = copied(MissionSpecSchema, body.spec);
    state.createTime = timeOf(event);
    state.planningOpen = true;
    if (body.parent) state.parent = body.parent;
    state.lineage = body.lineage;
  },
  ownerChanged({ state, plan }, body) {
    plan.counts.takeovers += Number(Boolean(state.nodeId));
    state.nodeId = body.nodeId;
    state.foldVersion = body.foldVersion || state.foldVersion;
  },
  planExtended({ state, plan }, body, event) {
    let probes = false;
    for (const node of body.nodes) {
      const record = create(NodeRecordSchema, { node, planner: body.planner, plannedSeq: event.seq });
      record.state = NodeState.PENDING;
      const step = node.kind.case === "step" ? node.kind.value : undefined;
      if (step?.notBefore) record.notBefore = step.notBefore;
      probes ||= isProbe(record);
      plan.add(record);
    }
    if (!probes) state.planningOpen = body.more;
  },
  policyDecided(folded, body) {
    folded.attempt(body.stepId, body.attempt).decision = copied(DecisionSchema, body.decision);
  },
  stepIntended(folded, body, event) {
    const attempt = folded.attempt(body.stepId, body.attempt);
    attempt.workerId = body.workerId;
    attempt.journalId = body.journalId;
    attempt.actionDigest = body.actionDigest;
    attempt.effectClass = body.effectClass;
    attempt.approvalId = body.approvalId;
    attempt.epoch = event.epoch;
    attempt.intendedSeq = event.seq;
    attempt.intendTime = timeOf(event);
    attempt.open = true;
    attempt.withdrawn = false;
    folded.plan.counts.attempts += 1;
    folded.plan.counts.openIntents += 1;
    meters.stepBegun(folded.state);
    if (body.approvalId) folded.approval(body.approvalId).state = ApprovalState.CONSUMED;
    folded.plan.set(folded.plan.node(body.stepId), NodeState.RUNNING);
  },
  stepWithdrawn(folded, body) {
    const attempt = folded.attempt(body.stepId, body.attempt);
    folded.close(attempt, 0n);
    attempt.withdrawn = true;
    attempt.effect = Effect.NONE;
    attempt.message = body.reason;
    folded.plan.set(folded.plan.node(body.stepId), NodeState.PENDING);
  },
  stepFinished(folded, body, event) {
    const attempt = folded.attempt(body.stepId, body.attempt);
    const outcome = body.outcome ?? create(OutcomeSchema);
    folded.close(attempt);
    attempt.status = outcome.status;
    attempt.effect = outcome.effect;
    attempt.message = outcome.message;
    attempt.outcomeReason = outcome.reason;
    attempt.finishedSeq = event.seq;
    attempt.finishTime = timeOf(event);
    attempt.blobs = outcome.blobs;
    folded.plan.counts.lostAttempts += Number(outcome.status === OutcomeStatus.LOST);
    if (outcome.session) sessionKept(folded.state, outcome.session);
    folded.plan.set(folded.plan.node(body.stepId), NodeState.CHECKING);
  },
  stepValidated(folded, body) {
    const record = folded.plan.node(body.stepId);
    const attempt = folded.attempt(body.stepId, body.attempt);
    attempt.findings = body.findings;
    attempt.holds = body.holds;
    if (body.holds === Holds.YES) folded.plan.set(record, NodeState.SUCCEEDED);
    else if (body.holds === Holds.NO && attempt.status === OutcomeStatus.OK) folded.plan.counts.falseSuccesses += 1;
  },
  stepRetried({ plan }, body) {
    const record = plan.node(body.stepId);
    record.reason = body.reason;
    record.notBefore = copied(TimestampSchema, body.notBefore);
    plan.set(record, NodeState.PENDING);
  },
  groupRestarted({ plan }, body) {
    const group = plan.node(body.nodeId);
    group.restarts = body.restart;
    group.reason = body.reason;
    group.notBefore = copied(TimestampSchema, body.notBefore);
    for (const record of plan.descendants(nodeId(group))) {
      record.attemptsBeforeRestart = record.attempts.length;
      if (isProbe(record)) continue;
      delete record.notBefore;
      plan.set(record, NodeState.PENDING);
    }
  },
  nodeSettled({ plan }, body) {
    const record = plan.node(body.nodeId);
    record.reason = body.reason;
    record.signature = body.signature;
    plan.set(record, body.state);
  },
  approvalRequested({ state, plan }, body, event) {
    const { approvalId, stepId, actionDigest, summary, decision } = body;
    const asked = create(ApprovalRecordSchema, { approvalId, stepId, actionDigest, summary });
    asked.state = ApprovalState.PENDING;
    asked.reasons = decision?.reasons ?? [];
    asked.policyIds = decision?.policyIds ?? [];
    asked.expireTime = copied(TimestampSchema, body.expireTime);
    asked.requestTime = timeOf(event);
    state.approvals.push(asked);
    plan.counts.approvals += 1;
    plan.set(plan.node(stepId), NodeState.WAITING);
  },
  approvalDecided(folded, body, event) {
    const approval = folded.approval(body.approvalId);
    approval.state = body.state;
    approval.actor = body.actor;
    approval.note = body.note;
    approval.decideTime = timeOf(event);
    const record = folded.plan.node(approval.stepId);
    if (body.state === ApprovalState.GRANTED && record.state === NodeState.WAITING) {
      folded.plan.set(record, NodeState.PENDING);
    }
  },
  commandApplied: ({ state }, body) => commanded(state, body),
  stepUncertain(folded, body) {
    const record = folded.plan.node(body.stepId);
    const attempt = folded.attempt(body.stepId, body.attempt);
    if (attempt.open) {
      folded.close(attempt);
      attempt.effect = Effect.UNKNOWN;
    }
    record.reason = body.known;
    folded.plan.set(record, NodeState.UNCERTAIN);
  },
  uncertaintyResolved(folded, body) {
    const record = folded.plan.node(body.stepId);
    folded.attempt(body.stepId, body.attempt).effect = body.effect;
    record.reason = body.note;
    folded.plan.set(record, body.effect === Effect.DONE ? NodeState.SUCCEEDED : NodeState.PENDING);
  },
  runBlocked({ state }, body) {
    state.blockedReason = body.reason;
    state.blockedDetail = body.detail;
  },
  runUnblocked({ state }) {
    state.blockedReason = "";
    state.blockedDetail = "";
  },
  artifactRecorded({ state }, body) {
    state.artifacts.push(body);
  },
  runFinished({ state }, body, event) {
    state.phase = body.phase;
    state.summary = body.summary;
    state.reason = body.reason;
    state.finishTime = timeOf(event);
    state.blockedReason = "";
    state.blockedDetail = "";
    state.planningOpen = false;
    meters.ended(state);
  },
  modelCallIntended({ state, plan }, body) {
    plan.counts.modelCalls += 1;
    meters.callBegun(state, body);
  },
  modelCallFinished({ state, plan }, body) {
    plan.counts.costMicrousd += meters.callEnded(state, body);
  },
  runBudgeted: ({ state }, body) => meters.budgeted(state, body),
  budgetGranted: ({ state }, body) => meters.granted(state, body),
  goalChanged({ state }, body) {
    state.goal = body.goal;
  },
  steeringAnswered({ state }, body) {
    state.steeringNote = body.note;
  },
  stateInherited: inherited.state,
  outcomeInherited: inherited.outcome,
  begunElsewhere: inherited.begunElsewhere,
};
