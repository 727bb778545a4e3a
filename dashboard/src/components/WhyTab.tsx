import { EffectClass } from "../gen/skyagent/execution/v1/effect_pb";
import { type Decision, Verdict } from "../gen/skyagent/policy/v1/decision_pb";
import { ApprovalState, NodeState } from "../gen/skyagent/run/v1/event_pb";
import { type Finding, Holds } from "../gen/skyagent/run/v1/plan_pb";
import type { ApprovalRecord, AttemptRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import { exact, millis, shortDigest, words } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { nodeId, stepOf } from "../run/tree";
import { Badge, Field, Section, type Tone } from "./bits";
import { ShieldIcon, StateIcon } from "./Icons";

const VERDICTS: Readonly<Record<Verdict, readonly [Tone, string]>> = {
  [Verdict.UNSPECIFIED]: ["muted", "Not judged"],
  [Verdict.ALLOW]: ["ok", "Allowed"],
  [Verdict.ASK]: ["warn", "Asks a person"],
  [Verdict.DENY]: ["bad", "Denied"],
};

const PROMISES: Readonly<Record<EffectClass, string>> = {
  [EffectClass.UNSPECIFIED]: "",
  [EffectClass.READ]: "Read: changes nothing, and may be done again freely.",
  [EffectClass.IDEMPOTENT]: "Idempotent: the same result however often it is done.",
  [EffectClass.PROBEABLE]:
    "Probeable: when nobody knows whether it happened, the application is asked before it is done again.",
  [EffectClass.ONCE]: "Once: when nobody knows whether it happened, a person decides.",
};

interface Props {
  readonly feed: RunFeed;
  readonly record: NodeRecord;
  readonly attempt: AttemptRecord | undefined;
}

/** Why it was planned, why it was allowed, and why it counts as done or not. */
export function WhyTab({ feed, record, attempt }: Props) {
  const planned = feed.events.find((event) => event.seq === record.plannedSeq)?.body?.kind;
  const step = stepOf(record);
  const approval = feed.fold.state.approvals.findLast((each) => each.stepId === nodeId(record));
  const effect = step?.action?.effectClass ?? EffectClass.UNSPECIFIED;
  return (
    <>
      {attempt && attempt.findings.length > 0 && (
        <Section title="Does it hold?">
          <ul className="flex flex-col gap-2">
            {attempt.findings.map((finding, index) => (
              // biome-ignore lint/suspicious/noArrayIndexKey: findings have no name, and are replaced as a whole
              <FindingLine key={index} finding={finding} />
            ))}
          </ul>
        </Section>
      )}
      {attempt?.decision && <Judged decision={attempt.decision} />}
      {approval && <Answered approval={approval} />}
      <Section title="Plan">
        <dl className="flex flex-col gap-1 text-sm">
          {planned?.case === "planExtended" && <Field name="Because">{planned.value.reason}</Field>}
          <Field name="Planned by">
            {record.planner}, event {record.plannedSeq.toString()}
          </Field>
          {effect !== EffectClass.UNSPECIFIED && <Field name="Promise">{PROMISES[effect]}</Field>}
          {step?.probeOf && (
            <Field name="Asks about">another step: only the application can say whether that one happened</Field>
          )}
        </dl>
      </Section>
    </>
  );
}

const HOLDS: Readonly<Record<Holds, NodeState>> = {
  [Holds.UNSPECIFIED]: NodeState.PENDING,
  [Holds.YES]: NodeState.SUCCEEDED,
  [Holds.NO]: NodeState.FAILED,
  [Holds.UNKNOWN]: NodeState.UNCERTAIN,
};

function FindingLine({ finding }: { finding: Finding }) {
  const claim = finding.postcondition?.claim.case;
  return (
    <li className="flex gap-2 text-sm">
      <StateIcon state={HOLDS[finding.holds]} />
      <span className="min-w-0">
        <span className="break-words">{finding.detail}</span>
        <span className="block text-xs text-muted">
          {claim && words(claim)}
          {finding.probeStepId ? ", by asking the application again" : ", by what the step itself returned"}
        </span>
      </span>
    </li>
  );
}

function Judged({ decision }: { decision: Decision }) {
  const [tone, text] = VERDICTS[decision.verdict];
  const at = millis(decision.time);
  return (
    <Section title="Policy">
      <div className="flex flex-wrap items-center gap-2 text-sm">
        <Badge tone={tone}>
          <ShieldIcon /> {text}
        </Badge>
        by{" "}
        {decision.policyIds.map((id) => (
          <code key={id} className="rounded bg-raised px-1.5 font-mono text-xs leading-5">
            {id}
          </code>
        ))}
      </div>
      {decision.reasons.map((reason) => (
        <p key={reason} className="text-sm break-words">
          {reason}
        </p>
      ))}
      {decision.errors.map((error) => (
        <p key={error} className="text-sm break-words text-bad">
          {error}
        </p>
      ))}
      <dl className="flex flex-col gap-1 text-sm">
        {at !== undefined && <Field name="Decided">{exact(at)}</Field>}
        <Field name="Bundle">
          <Digest digest={decision.bundleDigest} />
        </Field>
        <Field name="Bound to action">
          <Digest digest={decision.actionDigest} />
        </Field>
      </dl>
    </Section>
  );
}

function Answered({ approval }: { approval: ApprovalRecord }) {
  const at = millis(approval.decideTime);
  const open = approval.state === ApprovalState.PENDING;
  return (
    <Section title="Approval">
      <dl className="flex flex-col gap-1 text-sm">
        <Field name="State">
          <Badge tone={open ? "warn" : approval.state === ApprovalState.DENIED ? "bad" : "muted"}>
            {words(ApprovalState[approval.state] ?? "")}
          </Badge>
        </Field>
        <Field name="Asked">{approval.summary}</Field>
        <Field name="Because">{approval.reasons.join("; ")}</Field>
        {approval.actor && <Field name="Answered by">{approval.actor}</Field>}
        {at !== undefined && <Field name="Answered">{exact(at)}</Field>}
        {approval.note && <Field name="Note">{approval.note}</Field>}
        <Field name="Bound to action">
          <Digest digest={approval.actionDigest} />
        </Field>
      </dl>
    </Section>
  );
}

function Digest({ digest }: { digest: string }) {
  return (
    <code className="font-mono text-xs text-muted" title={digest}>
      {shortDigest(digest)}
    </code>
  );
}
