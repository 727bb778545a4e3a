import { Link } from "@tanstack/react-router";
import { useRef } from "react";
import { RunPhase } from "../gen/skyagent/run/v1/event_pb";
import type { RunSummary } from "../gen/skyagent/run/v1/run_service_pb";
import { useNow } from "../lib/clock";
import { ago, duration, exact, millis, plural } from "../lib/format";
import { useShortcuts } from "../lib/shortcuts";
import { terminal } from "../run/fold";
import { Badge, Meter, PhaseBadge } from "./bits";

const COLUMNS = "md:grid-cols-[minmax(0,1fr)_9.5rem_11rem_6rem]";

export function RunTable({ runs }: { runs: readonly RunSummary[] }) {
  const now = useNow();
  const list = useRef<HTMLUListElement>(null);
  const move = (by: number) => {
    const links = [...(list.current?.querySelectorAll("a") ?? [])];
    const at = links.indexOf(document.activeElement as HTMLAnchorElement);
    links[Math.max(0, Math.min(links.length - 1, at + by))]?.focus();
  };
  useShortcuts({ j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1) });
  return (
    <div className="overflow-hidden rounded-xl border border-line bg-panel">
      <div aria-hidden="true" className={`label hidden gap-6 border-b border-line px-4 py-2 md:grid ${COLUMNS}`}>
        <span>Goal</span>
        <span>State</span>
        <span>Progress</span>
        <span className="text-right">Begun</span>
      </div>
      <ul ref={list} className="divide-y divide-line">
        {runs.map((run) => (
          <RunLine key={run.runId} run={run} now={now} />
        ))}
      </ul>
    </div>
  );
}

function RunLine({ run, now }: { run: RunSummary; now: number }) {
  const { counts } = run;
  const begun = millis(run.createTime) ?? now;
  const ended = millis(run.finishTime);
  const failed = run.phase === RunPhase.FAILED;
  return (
    <li>
      <Link
        to="/runs/$runId"
        params={{ runId: run.runId }}
        className={`grid items-center gap-x-6 gap-y-2 px-4 py-3 -outline-offset-2 hover:bg-shade ${COLUMNS}`}
      >
        <span className="min-w-0">
          <span className="flex min-w-0 flex-wrap items-center gap-2">
            {run.waitingForPerson > 0 && <Badge tone="warn">{plural(run.waitingForPerson, "question")} for you</Badge>}
            <span className="min-w-0 truncate font-medium">{run.goal}</span>
          </span>
          <span className="block truncate text-sm text-muted">{doing(run)}</span>
        </span>
        <span className="flex flex-wrap gap-1">
          <PhaseBadge phase={run.phase} />
          {run.dryRun && <Badge tone="muted">Dry run</Badge>}
        </span>
        <span className="flex flex-col gap-1.5">
          <span className="num flex justify-between text-xs text-muted">
            <span>
              {counts?.stepsSucceeded ?? 0} of {plural(counts?.steps ?? 0, "step")}
            </span>
            {Boolean(counts?.falseSuccesses) && (
              <span className="text-warn" title="Answers that said done and were not">
                {counts?.falseSuccesses} false caught
              </span>
            )}
          </span>
          <Meter
            label="Steps done"
            value={counts?.stepsSucceeded ?? 0}
            of={counts?.steps ?? 0}
            tone={failed ? "bad" : terminal(run.phase) ? "ok" : "accent"}
          />
        </span>
        <span className="num text-sm text-muted md:text-right" title={exact(begun)}>
          {ago(begun, now)}
          {ended && <span className="block text-xs">took {duration(ended - begun)}</span>}
        </span>
      </Link>
    </li>
  );
}

function doing(run: RunSummary): string {
  if (terminal(run.phase)) return run.summary;
  return run.currentStep || run.blockedReason || "about to begin";
}
