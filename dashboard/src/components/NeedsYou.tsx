import { ApprovalState } from "../gen/skyagent/run/v1/event_pb";
import type { ApprovalRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import { useNow } from "../lib/clock";
import { duration, millis } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { terminal } from "../run/fold";
import { nodeId, planned } from "../run/tree";
import { uncertain } from "../run/view";
import { Badge, Button, Copyable } from "./bits";

/** Questions that only a person can answer, with the command that answers them. */
export function NeedsYou({ feed, onLook }: { feed: RunFeed; onLook: (stepId: string) => void }) {
  const { state } = feed.fold;
  if (terminal(state.phase)) return null;
  const asked = state.approvals.filter((approval) => approval.state === ApprovalState.PENDING);
  const unknown = uncertain(state);
  if (!asked.length && !unknown.length) return null;
  return (
    <section
      aria-label="Questions for you"
      className="shrink-0 divide-y divide-warn/20 border-b border-warn/30 bg-warn/8"
    >
      {asked.map((approval) => (
        <Asked key={approval.approvalId} approval={approval} onLook={onLook} />
      ))}
      {unknown.map((record) => (
        <Uncertain key={nodeId(record)} record={record} runId={feed.runId} onLook={onLook} />
      ))}
    </section>
  );
}

function Asked({ approval, onLook }: { approval: ApprovalRecord; onLook: (stepId: string) => void }) {
  const now = useNow();
  const closes = millis(approval.expireTime);
  const [what, ...details] = approval.summary.split(": ");
  return (
    <article className="grid gap-x-8 gap-y-3 px-4 py-3 lg:grid-cols-[minmax(0,1fr)_minmax(0,26rem)] lg:px-6">
      <div className="flex min-w-0 flex-col gap-1.5">
        <div className="flex flex-wrap items-center gap-2">
          <Badge tone="warn">Approval needed</Badge>
          <h2 className="font-semibold">{what}</h2>
          {closes && (
            <span className="num text-sm text-muted">closes in {duration(closes - now)}; then the answer is no</span>
          )}
        </div>
        <p className="text-sm text-warn">
          {approval.reasons.join("; ")}
          <span className="text-muted"> (policy {approval.policyIds.join(", ")})</span>
        </p>
        <p className="line-clamp-3 text-sm break-words text-muted">{details.join(": ")}</p>
      </div>
      <div className="flex min-w-0 flex-col gap-1.5">
        <Copyable text={`skyagent approvals approve ${approval.approvalId}`} />
        <Copyable text={`skyagent approvals deny ${approval.approvalId}`} />
        <span>
          <Button onClick={() => onLook(approval.stepId)}>Look at the step</Button>
        </span>
      </div>
    </article>
  );
}

interface UncertainProps {
  readonly record: NodeRecord;
  readonly runId: string;
  readonly onLook: (stepId: string) => void;
}

function Uncertain({ record, runId, onLook }: UncertainProps) {
  const answer = (found: "happened" | "did-not-happen") =>
    `skyagent runs resolve ${runId} ${nodeId(record)} --${found} --note "seen in the application"`;
  return (
    <article className="grid gap-x-8 gap-y-3 px-4 py-3 lg:grid-cols-[minmax(0,1fr)_minmax(0,26rem)] lg:px-6">
      <div className="flex min-w-0 flex-col gap-1.5">
        <div className="flex flex-wrap items-center gap-2">
          <Badge tone="odd">Uncertain</Badge>
          <h2 className="font-semibold">{planned(record).title}</h2>
        </div>
        <p className="text-sm break-words">{record.reason}</p>
        <p className="text-sm text-muted">
          Nobody but you can tell whether it happened: look into the application, then say DONE or NONE.
        </p>
      </div>
      <div className="flex min-w-0 flex-col gap-1.5">
        <Copyable text={answer("happened")}>It happened</Copyable>
        <Copyable text={answer("did-not-happen")}>It did not happen</Copyable>
        <span>
          <Button onClick={() => onLook(nodeId(record))}>Look at the step</Button>
        </span>
      </div>
    </article>
  );
}
