import { toJsonString } from "@bufbuild/protobuf";
import { ActionSchema } from "../gen/skyagent/execution/v1/action_pb";
import type { BrowserAction, FieldValue, Target } from "../gen/skyagent/execution/v1/browser_pb";
import { ControlStep } from "../gen/skyagent/run/v1/plan_pb";
import type { AttemptRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import { cents, shortDigest, words } from "../lib/format";
import { stepOf } from "../run/tree";
import { Field, Section } from "./bits";
import { Pre } from "./Evidence";

/** What the worker is told to do, word for word. */
export function ActionTab({ record, attempt }: { record: NodeRecord; attempt: AttemptRecord | undefined }) {
  const step = stepOf(record);
  const action = step?.action;
  if (!action) return <p className="text-sm text-muted">{ownStep(step?.control)}</p>;
  const { kind } = action;
  const facts = step.facts;
  return (
    <>
      {kind.case === "browser" && <Browser action={kind.value} />}
      {facts && (
        <Section title="What policies look at">
          <dl className="flex flex-col gap-1 text-sm">
            {facts.intent && <Field name="Intent">{words(facts.intent)}</Field>}
            {facts.host && <Field name="Host">{facts.host}</Field>}
            {facts.amountCents !== undefined && <Field name="Amount">{cents(facts.amountCents)}</Field>}
            <Field name="Sends data">{facts.sendsData ? "yes" : "no"}</Field>
            {facts.secrets.length > 0 && <Field name="Secrets">{facts.secrets.join(", ")}</Field>}
            {attempt && (
              <Field name="Digest">
                <code className="font-mono text-xs text-muted" title={attempt.actionDigest}>
                  {shortDigest(attempt.actionDigest)}
                </code>
              </Field>
            )}
          </dl>
        </Section>
      )}
      <Section title="As it is sent">
        <Pre text={toJsonString(ActionSchema, action, { prettySpaces: 2 })} />
      </Section>
    </>
  );
}

function ownStep(control: ControlStep | undefined): string {
  if (control === ControlStep.OUTCOME_TABLE)
    return "The control plane writes the outcome table itself; no worker is told.";
  return "The control plane does this itself; no worker is told.";
}

function Browser({ action: { action } }: { action: BrowserAction }) {
  if (!action.case) return null;
  const values = valuesOf(action);
  return (
    <Section title={words(action.case)}>
      {action.case === "navigate" && <p className="font-mono text-xs break-all">{action.value.url}</p>}
      {action.case === "extract" && action.value.url && (
        <p className="font-mono text-xs break-all">{action.value.url}</p>
      )}
      {"key" in action.value && <p className="text-sm">Key {action.value.key}</p>}
      {"target" in action.value && action.value.target && <p className="text-sm">{targetWords(action.value.target)}</p>}
      {values.length > 0 && <Values values={values} sent={action.case === "click"} />}
    </Section>
  );
}

function valuesOf(action: BrowserAction["action"]): readonly FieldValue[] {
  if (action.case === "fillForm") return action.value.fields;
  return action.case === "click" ? action.value.expect : [];
}

function Values({ values, sent }: { values: readonly FieldValue[]; sent: boolean }) {
  return (
    <table className="w-full max-w-2xl text-left text-sm">
      <caption className="pb-1 text-left text-xs text-muted">
        {sent ? "Must read back so, right before the click" : "Set and read back"}
      </caption>
      <tbody className="divide-y divide-line">
        {values.map((value) => (
          <tr key={`${value.label} ${value.target ? targetWords(value.target) : ""}`}>
            <th scope="row" className="w-40 py-1 pr-4 align-top font-normal text-muted">
              {value.label}
            </th>
            <td className="py-1 break-words">{value.value}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** An element as a person would name it. */
function targetWords({ by }: Target): string {
  if (by.case === "ref") return `the element ${by.value}`;
  if (by.case === "point") return `the point ${by.value.x}, ${by.value.y}`;
  if (by.case !== "locator") return "";
  const { role, name, field, css } = by.value;
  const called = name ? `“${name}”` : field ? `field “${field}”` : css;
  return [role, called].filter(Boolean).join(" ");
}
