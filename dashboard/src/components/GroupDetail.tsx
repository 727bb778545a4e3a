import type { NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import { plural } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { isProbe, nodeId, planned } from "../run/tree";
import { caughtBelow, caughtFalse } from "../run/view";
import { Badge, Section } from "./bits";
import { EventsTab } from "./EventsTab";
import { STATE_WORDS, StateIcon } from "./Icons";

interface Props {
  readonly feed: RunFeed;
  readonly record: NodeRecord;
  readonly onChoose: (id: string) => void;
}

/** A group: what is below it. */
export function GroupDetail({ feed, record, onChoose }: Props) {
  const children = feed.fold.plan.children(nodeId(record)).filter((child) => !isProbe(child));
  return (
    <div className="flex max-w-3xl flex-col gap-5">
      {record.restarts > 0 && (
        <p className="text-sm">
          <Badge tone="warn">Started again {plural(record.restarts, "time")}</Badge>
        </p>
      )}
      <Section title="In it">
        <ul className="divide-y divide-line">
          {children.map((child) => (
            <li key={nodeId(child)}>
              <button
                type="button"
                onClick={() => onChoose(nodeId(child))}
                className="flex w-full items-center gap-2 rounded py-1.5 text-left hover:bg-shade"
              >
                <StateIcon state={child.state} />
                <span className="min-w-0 truncate">{planned(child).title}</span>
                {(caughtFalse(child) || caughtBelow(feed.fold.plan, child)) && (
                  <Badge tone="warn">False success caught</Badge>
                )}
                <span className="ml-auto shrink-0 text-xs text-muted">{STATE_WORDS[child.state]}</span>
              </button>
            </li>
          ))}
        </ul>
      </Section>
      <Section title="Events">
        <EventsTab feed={feed} events={feed.eventsOf(nodeId(record))} />
      </Section>
    </div>
  );
}
