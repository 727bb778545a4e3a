import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { Button, Copyable, Failure } from "../components/bits";
import { RunTable } from "../components/RunTable";
import { SignIn } from "../components/SignIn";
import { RunPhase } from "../gen/skyagent/run/v1/event_pb";
import type { RunSummary } from "../gen/skyagent/run/v1/run_service_pb";
import { CallError } from "../lib/errors";
import { missionsRoute, SHOWS, type Show } from "../routes";

const REFRESH_MS = 2_000;

const CHIPS: Readonly<Record<Show, { readonly text: string; readonly phases: readonly RunPhase[] }>> = {
  all: { text: "All", phases: [] },
  waiting: { text: "Needs a person", phases: [RunPhase.WAITING, RunPhase.RUNNING, RunPhase.PAUSED] },
  active: {
    text: "Active",
    phases: [
      RunPhase.QUEUED,
      RunPhase.RUNNING,
      RunPhase.PAUSING,
      RunPhase.PAUSED,
      RunPhase.WAITING,
      RunPhase.CANCELLING,
    ],
  },
  succeeded: { text: "Succeeded", phases: [RunPhase.SUCCEEDED] },
  failed: { text: "Failed", phases: [RunPhase.FAILED, RunPhase.CANCELLED, RunPhase.BUDGET_EXHAUSTED] },
};

/** Every mission, newest first, those that wait for a person before all others. */
export function Missions() {
  const { show = "all" } = missionsRoute.useSearch();
  const { client } = missionsRoute.useRouteContext();
  const navigate = useNavigate();
  const query = useInfiniteQuery({
    queryKey: ["runs", show],
    queryFn: ({ pageParam, signal }) => client.listRuns({ phases: CHIPS[show].phases, pageToken: pageParam }, signal),
    initialPageParam: "",
    getNextPageParam: (page) => page.nextPageToken || undefined,
    refetchInterval: REFRESH_MS,
    placeholderData: keepPreviousData,
  });
  const runs = sorted(query.data?.pages.flatMap((page) => page.runs) ?? [], show);
  const choose = (next: Show) => void navigate({ to: "/", search: next === "all" ? {} : { show: next } });

  return (
    <div className="mx-auto flex h-full max-w-7xl flex-col gap-4 overflow-y-auto p-4 lg:p-6">
      <div className="flex flex-wrap items-center gap-x-6 gap-y-3">
        <h1 className="text-xl font-semibold tracking-tight">Missions</h1>
        <fieldset className="flex flex-wrap gap-1.5">
          <legend className="sr-only">Which missions</legend>
          {SHOWS.map((each) => (
            <button
              key={each}
              type="button"
              aria-pressed={each === show}
              onClick={() => choose(each)}
              className="rounded-full border border-line px-3 py-0.5 text-sm text-muted hover:text-text aria-pressed:border-accent aria-pressed:bg-accent/10 aria-pressed:text-text"
            >
              {CHIPS[each].text}
            </button>
          ))}
        </fieldset>
        {query.isRefetchError && query.data && <Stale since={query.dataUpdatedAt} />}
      </div>
      {query.isPending ? (
        <Skeleton />
      ) : query.isError && !query.data ? (
        <Problem error={query.error} retry={() => void query.refetch()} />
      ) : runs.length ? (
        <RunTable runs={runs} />
      ) : (
        <Empty show={show} />
      )}
      {query.hasNextPage && (
        <div className="text-center">
          <Button onClick={() => void query.fetchNextPage()}>Show older ones</Button>
        </div>
      )}
    </div>
  );
}

function sorted(runs: readonly RunSummary[], show: Show): RunSummary[] {
  const asks = (run: RunSummary) => Number(run.waitingForPerson > 0);
  const shown = show === "waiting" ? runs.filter(asks) : [...runs];
  return shown.sort((one, other) => asks(other) - asks(one));
}

function Problem({ error, retry }: { error: Error; retry: () => void }) {
  const unknown = error instanceof CallError && error.status === 401;
  return unknown ? <SignIn onDone={retry} /> : <Failure error={error} retry={retry} />;
}

function Stale({ since }: { since: number }) {
  return (
    <p role="status" className="text-sm text-warn">
      Reconnecting; this is how it was at {new Date(since).toLocaleTimeString()}
    </p>
  );
}

function Empty({ show }: { show: Show }) {
  if (show !== "all") return <p className="m-auto text-muted">No mission is like that now.</p>;
  return (
    <div className="m-auto flex max-w-xl flex-col gap-3 text-center">
      <p>No mission has been given yet. This one needs nothing and shows every part at work:</p>
      <Copyable text="skyagent run --template self_test --watch" />
    </div>
  );
}

function Skeleton() {
  return (
    <div
      role="status"
      aria-label="Loading"
      className="flex flex-col gap-px overflow-hidden rounded-xl border border-line"
    >
      {[0, 1, 2, 3, 4].map((row) => (
        <div key={row} className="flex h-14 items-center gap-6 bg-panel px-4">
          <span className="breathe h-3 w-1/3 rounded bg-raised" />
          <span className="breathe h-3 w-24 rounded bg-raised" />
          <span className="breathe ml-auto h-3 w-32 rounded bg-raised" />
        </div>
      ))}
    </div>
  );
}
