import { useNavigate } from "@tanstack/react-router";
import { useMemo, useState } from "react";
import { Failure } from "../components/bits";
import { NeedsYou } from "../components/NeedsYou";
import { Overview } from "../components/Overview";
import { PlanTree } from "../components/PlanTree";
import { RunHeader } from "../components/RunHeader";
import { SignIn } from "../components/SignIn";
import { StepDetail } from "../components/StepDetail";
import { Timeline } from "../components/Timeline";
import { CallError } from "../lib/errors";
import { useShortcuts } from "../lib/shortcuts";
import { type RunSearch, runRoute, TABS } from "../routes";
import type { RunFeed } from "../run/feed";
import { terminal } from "../run/fold";
import { nodeId } from "../run/tree";
import { useRun } from "../run/useRun";
import { currentStep, rows } from "../run/view";

/** One run, live: its plan, what a step did and why, and the evidence for it. */
export function LiveRun() {
  const { runId } = runRoute.useParams();
  const { client } = runRoute.useRouteContext();
  const { feed, version } = useRun(client, runId);
  const { link } = feed;
  if (link.kind === "failed" && !feed.events.length) {
    const unknown = link.error instanceof CallError && link.error.status === 401;
    return (
      <div className="flex h-full p-4">
        {unknown ? <SignIn onDone={() => feed.retry()} /> : <Failure error={link.error} retry={() => feed.retry()} />}
      </div>
    );
  }
  return feed.events.length ? <Run feed={feed} version={version} /> : <Skeleton />;
}

function Run({ feed, version }: { feed: RunFeed; version: number }) {
  const search = runRoute.useSearch();
  const navigate = useNavigate();
  const [toggled, setToggled] = useState<ReadonlyMap<string, boolean>>(new Map());
  const [filter, setFilter] = useState("");
  const { fold } = feed;

  const ended = terminal(fold.state.phase);
  const current = currentStep(fold.state);
  const chosen = search.step ? fold.plan.find(search.step) : undefined;
  const shown = chosen ?? (ended ? undefined : current);

  const shownId = shown ? nodeId(shown) : "";
  // biome-ignore lint/correctness/useExhaustiveDependencies: the fold changes in place; its version tells when.
  const lines = useMemo(
    () => rows(fold.plan, { toggled, filter, shown: shownId }),
    [fold, version, toggled, filter, shownId],
  );

  const look = (next: RunSearch) =>
    void navigate({ to: "/runs/$runId", params: { runId: feed.runId }, search: next, replace: Boolean(search.step) });
  const tab = search.tab ? { tab: search.tab } : {};
  const choose = (id: string) => look({ step: id, ...tab });
  const move = (by: number) => {
    const at = lines.findIndex(({ record }) => record === shown);
    const next = lines[Math.max(0, Math.min(lines.length - 1, at < 0 ? 0 : at + by))];
    if (next) choose(nodeId(next.record));
  };
  const toggle = (id: string, open: boolean) => setToggled((before) => new Map(before).set(id, open));
  const turn = (open: boolean) => shownId && toggle(shownId, open);

  useShortcuts({
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    ArrowRight: () => turn(true),
    ArrowLeft: () => turn(false),
    End: () => look({}),
    "/": () => document.getElementById("plan-filter")?.focus(),
    ...Object.fromEntries(
      TABS.map((name, index) => [String(index + 1), () => shown && look({ step: nodeId(shown), tab: name })]),
    ),
  });

  return (
    <div className="flex h-full flex-col overflow-y-auto lg:overflow-hidden">
      <RunHeader feed={feed} following={!chosen && !ended} onFollow={() => look({})} />
      <NeedsYou feed={feed} onLook={choose} />
      <Timeline feed={feed} version={version} chosen={shownId} onChoose={choose} />
      <div className="grid shrink-0 grow grid-cols-[minmax(0,1fr)] content-start lg:min-h-0 lg:shrink lg:grid-cols-[minmax(20rem,26rem)_minmax(0,1fr)] lg:content-stretch">
        <div className={`border-line lg:flex lg:min-h-0 lg:flex-col lg:border-r ${chosen ? "hidden" : ""}`}>
          <PlanTree
            lines={lines}
            chosen={shownId}
            filter={filter}
            onFilter={setFilter}
            onChoose={choose}
            onToggle={toggle}
          />
        </div>
        <div className={`lg:block lg:min-h-0 lg:overflow-y-auto ${chosen || ended ? "" : "hidden"}`}>
          {shown ? (
            <StepDetail
              feed={feed}
              record={shown}
              tab={search.tab ?? "why"}
              attempt={chosen ? search.attempt : undefined}
              pinned={Boolean(chosen)}
              onLook={(next) => look({ step: nodeId(shown), ...tab, ...next })}
              onChoose={choose}
              onBack={() => look({})}
            />
          ) : (
            <Overview feed={feed} onChoose={choose} />
          )}
        </div>
      </div>
    </div>
  );
}

function Skeleton() {
  return (
    <div role="status" aria-label="Loading" className="flex h-full flex-col gap-4 p-6">
      <span className="breathe h-5 w-1/2 rounded bg-raised" />
      <span className="breathe h-3 w-1/3 rounded bg-raised" />
      <div className="mt-4 grid grow gap-6 lg:grid-cols-[24rem_1fr]">
        <span className="breathe rounded-xl bg-panel" />
        <span className="breathe rounded-xl bg-panel" />
      </div>
    </div>
  );
}
