import type { BrowserResult, FieldReadback, HttpExchange, Table } from "../gen/skyagent/execution/v1/browser_pb";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";
import type { Finding } from "../gen/skyagent/run/v1/plan_pb";
import type { AttemptRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import type { RunFeed } from "../run/feed";
import { nodeId } from "../run/tree";
import { Field, Section } from "./bits";
import { BlobLine, BlobText, isPicture, Pre } from "./Evidence";
import { StateIcon } from "./Icons";

interface Props {
  readonly feed: RunFeed;
  readonly stepId: string;
  readonly attempt: AttemptRecord | undefined;
  readonly probes: readonly NodeRecord[];
}

/** What came back: the page, the fields, the wire, and what the application said when it was asked again. */
export function SawTab({ feed, stepId, attempt, probes }: Props) {
  if (!attempt?.finishedSeq) return <p className="text-sm text-muted">Nothing has come back yet.</p>;
  const result = feed.outcome(stepId, attempt.attempt)?.result;
  const browser = result?.case === "browser" ? result.value : undefined;
  const observation = attempt.blobs.find((blob) => blob.role === "observation");
  return (
    <>
      {attempt.message && <p className="text-sm break-words">{attempt.message}</p>}
      {browser && <Page result={browser} />}
      {probes.map((probe) => (
        <Asked
          key={nodeId(probe)}
          feed={feed}
          probe={probe}
          finding={attempt.findings.find((each) => each.probeStepId === nodeId(probe))}
        />
      ))}
      {browser?.extracted?.tables.map((table, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a page's tables have no other name
        <Cells key={index} table={table} />
      ))}
      {browser && browser.fields.length > 0 && <Fields fields={browser.fields} />}
      {browser && browser.exchanges.length > 0 && <Wire exchanges={browser.exchanges} />}
      {browser?.observation?.text ? (
        <Section title="The page as text">
          <Pre text={browser.observation.text} />
        </Section>
      ) : (
        observation && (
          <Section title="The page as text">
            <BlobText blob={observation} />
          </Section>
        )
      )}
      <Section title="Evidence kept">
        <ul className="divide-y divide-line">
          {attempt.blobs.map((blob) => (
            <BlobLine key={blob.role + blob.digest} blob={blob} name={`${blob.role}${isPicture(blob) ? ".jpg" : ""}`} />
          ))}
        </ul>
      </Section>
    </>
  );
}

function Page({ result: { observation, dialog } }: { result: BrowserResult }) {
  if (!observation && !dialog) return null;
  return (
    <dl className="flex flex-col gap-1 text-sm">
      {observation?.title && <Field name="Title">{observation.title}</Field>}
      {observation?.url && (
        <Field name="Address">
          <span className="font-mono text-xs break-all">{observation.url}</span>
        </Field>
      )}
      {Boolean(observation?.httpStatus) && <Field name="HTTP status">{observation?.httpStatus}</Field>}
      {dialog && <Field name="Dialog">{dialog}</Field>}
    </dl>
  );
}

/** The tables that show what was asked about; a page has others, for its menus. */
function Asked({ feed, probe, finding }: { feed: RunFeed; probe: NodeRecord; finding: Finding | undefined }) {
  const result = feed.outcome(nodeId(probe), probe.attempts.length)?.result;
  const tables = result?.case === "browser" ? (result.value.extracted?.tables ?? []) : [];
  const claim = finding?.postcondition?.claim;
  const key = claim?.case === "listed" ? claim.value.key : "";
  const showing = tables.filter((table) => table.rows.some((row) => row.cells.includes(key)));
  return (
    <Section title="The application, asked again">
      {finding && <p className="text-sm break-words">{finding.detail}</p>}
      {showing.map((table, index) => (
        // biome-ignore lint/suspicious/noArrayIndexKey: a page's tables have no other name
        <Cells key={index} table={table} />
      ))}
    </Section>
  );
}

function Cells({ table }: { table: Table }) {
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
    <div tabIndex={0} className="max-h-80 overflow-auto rounded-lg border border-line">
      <table className="w-full text-left text-xs">
        <tbody className="divide-y divide-line">
          {table.rows.map((row, line) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: the rows of a table have no other name
            <tr key={line} className={row.header ? "bg-raised font-medium" : ""}>
              {row.cells.map((cell, column) => (
                // biome-ignore lint/suspicious/noArrayIndexKey: nor have its cells
                <td key={column} className="px-2.5 py-1.5 whitespace-nowrap">
                  {cell}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Fields({ fields }: { fields: readonly FieldReadback[] }) {
  return (
    <Section title="Fields, read back">
      <ul className="flex flex-col gap-1 text-sm">
        {fields.map((field) => (
          <li key={field.label} className="flex gap-2">
            <StateIcon state={field.matches ? NodeState.SUCCEEDED : NodeState.FAILED} />
            <span className="w-36 shrink-0 text-muted">{field.label}</span>
            <span className="min-w-0 break-words">
              {field.value}
              {field.error && <span className="block text-bad">{field.error}</span>}
            </span>
          </li>
        ))}
      </ul>
    </Section>
  );
}

function Wire({ exchanges }: { exchanges: readonly HttpExchange[] }) {
  return (
    <Section title="On the wire">
      <ul className="flex flex-col gap-1 font-mono text-xs">
        {exchanges.map((exchange, index) => (
          // biome-ignore lint/suspicious/noArrayIndexKey: the same request may have been made twice
          <li key={index} className="num grid grid-cols-[3.5rem_3rem_minmax(0,1fr)_auto] gap-2">
            <span className="text-muted">{exchange.method}</span>
            <span className={exchange.status >= 400 || !exchange.status ? "text-bad" : "text-ok"}>
              {exchange.status || exchange.error || "—"}
            </span>
            <span className="truncate" title={exchange.url}>
              {exchange.url}
              {exchange.location && <span className="text-muted"> → {exchange.location}</span>}
            </span>
            <span className="text-muted">{exchange.durationMs} ms</span>
          </li>
        ))}
      </ul>
    </Section>
  );
}
