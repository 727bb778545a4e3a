import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";
import { useNow } from "../lib/clock";
import { duration, exact, millis } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { terminal, WAITING_FOR_PERSON } from "../run/fold";
import { recordGroups } from "../run/view";
import { Badge, Button, Meter, PhaseBadge, type Tone } from "./bits";
import { LinkState } from "./LinkState";

/** What is asked, how it stands, and what it took so far. */
export function RunHeader(props: { feed: RunFeed; following: boolean; onFollow: () => void }) {
  const { state } = props.feed.fold;
  const ended = terminal(state.phase);
  const asks = state.blockedReason === WAITING_FOR_PERSON;
  const says = ended ? state.summary || state.reason : asks ? "" : state.blockedDetail;
  return (
    <header className="flex shrink-0 flex-col gap-3 border-b border-line bg-panel px-4 py-3 lg:px-6">
      <div className="flex flex-wrap items-center gap-x-3 gap-y-1.5">
        <h1 className="min-w-0 text-lg leading-6 font-semibold tracking-tight break-words">{state.spec?.goal}</h1>
        <PhaseBadge phase={state.phase} />
        {state.spec?.dryRun && <Badge tone="muted">Dry run</Badge>}
        {state.parent && (
          <Link to="/runs/$runId" params={{ runId: state.parent.runId }} search={{}} className="text-sm underline">
            Fork of {state.parent.runId} at event {String(state.parent.seq)}
          </Link>
        )}
        <span className="ml-auto flex min-w-0 items-center gap-3">
          {!props.following && !ended && <Button onClick={props.onFollow}>Follow live</Button>}
          <LinkState feed={props.feed} />
        </span>
      </div>
      {says && <p className={`text-sm ${ended ? "text-text" : "text-warn"}`}>{says}</p>}
      <Meters feed={props.feed} ended={ended} />
    </header>
  );
}

function Meters({ feed, ended }: { feed: RunFeed; ended: boolean }) {
  const { state } = feed.fold;
  const { counts } = state;
  const now = useNow(1_000, !ended);
  const begun = millis(state.createTime) ?? now;
  const until = millis(state.finishTime) ?? Math.max(now, millis(state.updateTime) ?? 0);
  const records = recordGroups(state);
  const entered = records.filter((record) => record.state === NodeState.SUCCEEDED).length;
  // Without a page that shows records again, nobody has seen them: the outcome table says so, too.
  const asked = !state.spec?.inputs.some((input) => input.name === "proof" && input.value === "none");
  const name = asked ? "Records verified" : "Records sent, unverified";
  return (
    <dl className="flex flex-wrap gap-x-7 gap-y-2">
      {records.length > 0 && (
        <Figure name={name} value={`${entered} of ${records.length}`}>
          <Meter label={name} value={entered} of={records.length} />
        </Figure>
      )}
      <Figure name="Steps" value={`${counts?.stepsSucceeded ?? 0} of ${counts?.steps ?? 0}`}>
        <Meter label="Steps done" value={counts?.stepsSucceeded ?? 0} of={counts?.steps ?? 0} tone="accent" />
      </Figure>
      <Figure name="Time" value={duration(until - begun)} title={`begun ${exact(begun)}`} />
      <Figure name="Attempts" value={counts?.attempts ?? 0} />
      <Figure name="False successes caught" value={counts?.falseSuccesses ?? 0} tone="warn" />
      <Figure name="Questions to people" value={counts?.approvals ?? 0} />
      <Figure name="Uncertain now" value={counts?.uncertain ?? 0} tone="odd" quiet />
      <Figure name="Attempts lost" value={counts?.lostAttempts ?? 0} tone="warn" quiet />
      <Figure name="Takeovers" value={counts?.takeovers ?? 0} tone="warn" quiet />
      <Figure name="Model calls" value={counts?.modelCalls ?? 0} />
    </dl>
  );
}

interface FigureProps {
  readonly name: string;
  readonly value: string | number;
  readonly title?: string;
  /** The colour it takes once it is not zero. */
  readonly tone?: Tone;
  /** Not shown while it is zero. */
  readonly quiet?: boolean;
  readonly children?: ReactNode;
}

const FIGURE_TONES: Partial<Record<Tone, string>> = { warn: "text-warn", odd: "text-odd", bad: "text-bad" };

function Figure({ name, value, title, tone, quiet = false, children }: FigureProps) {
  if (quiet && !value) return null;
  const colour = value && tone ? FIGURE_TONES[tone] : "";
  return (
    <div title={title} className="flex min-w-16 flex-col gap-0.5">
      <dt className="label whitespace-nowrap">{name}</dt>
      <dd className={`num text-sm font-semibold ${colour}`}>
        {value}
        {children}
      </dd>
    </div>
  );
}
