import { useQuery } from "@tanstack/react-query";
import { exact, millis, plural, shortDigest } from "../lib/format";
import { runRoute } from "../routes";
import type { RunFeed } from "../run/feed";
import { nodeId, planned } from "../run/tree";
import { caughtBelow, recordGroups } from "../run/view";
import { Badge, Copyable, Field, Section } from "./bits";
import { BlobLine } from "./Evidence";
import { STATE_WORDS, StateIcon } from "./Icons";

/** A run that has ended: what became of every record, what was made, and whether this page tells the truth. */
export function Overview({ feed, onChoose }: { feed: RunFeed; onChoose: (id: string) => void }) {
  const { state } = feed.fold;
  const records = recordGroups(state);
  return (
    <article className="flex flex-col gap-6 p-4 lg:p-6">
      {state.artifacts.length > 0 && (
        <Section title="Files made">
          <ul className="max-w-3xl divide-y divide-line">
            {state.artifacts.map(
              ({ artifactId, name, blob }) => blob && <BlobLine key={artifactId} blob={blob} name={name} />,
            )}
          </ul>
        </Section>
      )}
      {records.length > 0 && (
        <Section title={plural(records.length, "record")}>
          <ul className="grid gap-x-8 sm:grid-cols-2 2xl:grid-cols-3">
            {records.map((record) => (
              <li key={nodeId(record)} className="border-b border-line">
                <button
                  type="button"
                  onClick={() => onChoose(nodeId(record))}
                  className="flex w-full items-center gap-2 py-1.5 text-left hover:bg-shade"
                >
                  <StateIcon state={record.state} />
                  <span className="num min-w-0 truncate">{planned(record).title}</span>
                  <span className="ml-auto flex shrink-0 items-center gap-2 text-xs text-muted">
                    {caughtBelow(feed.fold.plan, record) && <Badge tone="warn">False success caught</Badge>}
                    {STATE_WORDS[record.state]}
                  </span>
                </button>
              </li>
            ))}
          </ul>
        </Section>
      )}
      <About feed={feed} />
    </article>
  );
}

function About({ feed }: { feed: RunFeed }) {
  const { state } = feed.fold;
  const begun = millis(state.createTime);
  const ended = millis(state.finishTime);
  return (
    <Section title="The run">
      <dl className="flex max-w-3xl flex-col gap-1 text-sm">
        <Field name="Run">
          <Copyable text={feed.runId} />
        </Field>
        <Field name="Template">
          {state.spec?.template || "none"} {state.templateVersion > 0 && `version ${state.templateVersion}`}
        </Field>
        {state.actor && <Field name="Started by">{state.actor}</Field>}
        {begun !== undefined && <Field name="Begun">{exact(begun)}</Field>}
        {ended !== undefined && <Field name="Ended">{exact(ended)}</Field>}
        <Field name="Allowed hosts">{state.spec?.allowedHosts.join(", ") || "the site's own"}</Field>
        <Field name="Journal">{plural(feed.events.length, "event")}</Field>
        <Field name="State">
          <Truth feed={feed} />
        </Field>
      </dl>
    </Section>
  );
}

/** Compares the digest of what was folded here with that of what was folded there. */
function Truth({ feed }: { feed: RunFeed }) {
  const { client } = runRoute.useRouteContext();
  const { seq } = feed.fold.state;
  const { data, error } = useQuery({
    queryKey: ["digest", feed.runId, seq.toString()],
    queryFn: async ({ signal }) => {
      const [{ stateDigest }, there] = await Promise.all([import("../run/digest"), client.getRun(feed.runId, signal)]);
      return { here: stateDigest(feed.fold.state), there: there.stateDigest };
    },
    staleTime: Number.POSITIVE_INFINITY,
  });
  if (error) return <span className="text-muted">not compared: {error.message}</span>;
  if (!data) return <span className="text-muted">comparing…</span>;
  const same = data.here === data.there;
  return (
    <span className={same ? "text-ok" : "text-bad"} title={`here ${data.here}\nthere ${data.there}`}>
      {same ? "Folded here and by the mesh to the same bytes " : "This page differs from the mesh: load it again "}
      <code className="font-mono text-xs">{shortDigest(data.here)}</code>
    </span>
  );
}
