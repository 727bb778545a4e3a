import { OutcomeStatus } from "../gen/skyagent/execution/v1/action_pb";
import type { AttemptRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import { clock, duration, millis, words } from "../lib/format";
import type { RunSearch, Tab } from "../routes";
import type { RunFeed } from "../run/feed";
import { nodeId, planned, stepOf } from "../run/tree";
import { above, probesOf, wasFalse } from "../run/view";
import { ActionTab } from "./ActionTab";
import { Badge } from "./bits";
import { EventsTab } from "./EventsTab";
import { GroupDetail } from "./GroupDetail";
import { STATE_WORDS, StateIcon } from "./Icons";
import { SawTab } from "./SawTab";
import { Stage } from "./Stage";
import { Tabs } from "./Tabs";
import { WhyTab } from "./WhyTab";

interface Props {
  readonly feed: RunFeed;
  readonly record: NodeRecord;
  readonly tab: Tab;
  /** The attempt to look at; the last one when it is not set. */
  readonly attempt: number | undefined;
  readonly pinned: boolean;
  readonly onLook: (search: RunSearch) => void;
  readonly onChoose: (id: string) => void;
  readonly onBack: () => void;
}

/** A step: what it did, what came of it, why it was allowed, and what was seen. */
export function StepDetail(props: Props) {
  const { feed, record, onChoose } = props;
  const attempt = record.attempts[(props.attempt ?? record.attempts.length) - 1] ?? record.attempts.at(-1);
  return (
    <article className="flex flex-col gap-4 p-4 lg:p-6">
      <Heading {...props} />
      {attempt && record.attempts.length > 1 && (
        <Attempts attempts={record.attempts} chosen={attempt} onLook={(number) => props.onLook({ attempt: number })} />
      )}
      {attempt && wasFalse(attempt) && <FalseSuccess attempt={attempt} />}
      {stepOf(record) ? (
        <>
          {attempt && <Stage feed={feed} record={record} attempt={attempt} onChoose={onChoose} />}
          <Details {...props} shown={attempt} />
        </>
      ) : (
        <GroupDetail feed={feed} record={record} onChoose={onChoose} />
      )}
    </article>
  );
}

function Heading({ feed, record, pinned, onBack }: Props) {
  const path = above(feed.fold.plan, record);
  return (
    <header className="flex flex-col gap-1">
      {pinned && (
        <button type="button" onClick={onBack} className="self-start py-1 text-sm text-accent lg:hidden">
          ← Plan
        </button>
      )}
      {path.length > 0 && <p className="text-sm text-muted">{path.join(" › ")}</p>}
      <div className="flex flex-wrap items-center gap-2">
        <StateIcon state={record.state} />
        <h2 className="text-base font-semibold">{planned(record).title}</h2>
        <span className="text-sm text-muted">{STATE_WORDS[record.state]}</span>
      </div>
      {record.reason && <p className="text-sm break-words text-muted">{record.reason}</p>}
    </header>
  );
}

interface AttemptsProps {
  readonly attempts: readonly AttemptRecord[];
  readonly chosen: AttemptRecord;
  readonly onLook: (attempt: number) => void;
}

function Attempts({ attempts, chosen, onLook }: AttemptsProps) {
  return (
    <fieldset className="flex flex-wrap gap-1.5">
      <legend className="sr-only">Attempts</legend>
      {attempts.map((attempt) => (
        <button
          key={attempt.attempt}
          type="button"
          aria-pressed={attempt === chosen}
          onClick={() => onLook(attempt.attempt)}
          className="num rounded-md border border-line px-2.5 py-1 text-xs text-muted aria-pressed:border-accent aria-pressed:bg-accent/10 aria-pressed:text-text"
        >
          Attempt {attempt.attempt} · {outcomeWords(attempt)}
        </button>
      ))}
    </fieldset>
  );
}

/** How an attempt ended, in words. */
export function outcomeWords(attempt: AttemptRecord): string {
  if (wasFalse(attempt)) return "false success";
  if (attempt.withdrawn) return "withdrawn unsent";
  if (attempt.open) return "under way";
  if (!attempt.intendedSeq) return "not sent";
  return words(OutcomeStatus[attempt.status] ?? "").toLowerCase();
}

function FalseSuccess({ attempt }: { attempt: AttemptRecord }) {
  const said = attempt.findings.find((finding) => finding.probeStepId);
  return (
    <div className="rounded-lg border border-warn/40 bg-warn/8 p-3">
      <p className="flex flex-wrap items-center gap-2 font-semibold">
        <Badge tone="warn">False success caught</Badge>
        The page said it was done, and the application says it was not.
      </p>
      {said && <p className="mt-1 text-sm break-words text-muted">Asked again: {said.detail}</p>}
    </div>
  );
}

const TAB_WORDS: Readonly<Record<Tab, string>> = { why: "Why", action: "Action", saw: "Saw", events: "Events" };

function Details({ feed, record, tab, onLook, shown }: Props & { shown: AttemptRecord | undefined }) {
  const attempt = shown ? { attempt: shown.attempt } : {};
  const probes = shown ? probesOf(feed.fold.plan, shown) : [];
  return (
    <Tabs
      label="Details of the step"
      names={TAB_WORDS}
      chosen={tab}
      onChoose={(next) => onLook({ ...attempt, tab: next })}
      aside={shown && <When attempt={shown} />}
    >
      {tab === "why" && <WhyTab feed={feed} record={record} attempt={shown} />}
      {tab === "action" && <ActionTab record={record} attempt={shown} />}
      {tab === "saw" && <SawTab feed={feed} stepId={nodeId(record)} attempt={shown} probes={probes} />}
      {tab === "events" && <EventsTab feed={feed} events={feed.eventsOf(nodeId(record))} />}
    </Tabs>
  );
}

function When({ attempt }: { attempt: AttemptRecord }) {
  const begun = millis(attempt.intendTime);
  const ended = millis(attempt.finishTime);
  if (begun === undefined) return null;
  return (
    <span className="num ml-auto hidden self-center text-xs text-muted sm:block">
      {clock(begun)}
      {ended !== undefined && ` · ${duration(ended - begun)}`} · {attempt.workerId}
    </span>
  );
}
