import { toJsonString } from "@bufbuild/protobuf";
import { useState } from "react";
import { type RunEvent, RunEventSchema } from "../gen/skyagent/run/v1/event_pb";
import { clock, millis, words } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { Copyable } from "./bits";
import { Pre } from "./Evidence";
import { Chevron } from "./Icons";

/** The journal itself: everything else on the page follows from it. */
export function EventsTab({ feed, events }: { feed: RunFeed; events: readonly RunEvent[] }) {
  return (
    <ol className="divide-y divide-line">
      {events.map((event) => (
        <Line key={event.seq.toString()} feed={feed} event={event} />
      ))}
    </ol>
  );
}

function Line({ feed, event }: { feed: RunFeed; event: RunEvent }) {
  const [open, setOpen] = useState(false);
  const at = millis(event.time);
  return (
    <li className="py-1">
      <button
        type="button"
        aria-expanded={open}
        onClick={() => setOpen(!open)}
        className="num flex w-full items-center gap-3 rounded py-1 text-left text-sm hover:bg-shade"
      >
        <span className="text-muted">
          <Chevron open={open} />
        </span>
        <span className="w-10 text-right text-muted">{event.seq.toString()}</span>
        <span className="font-medium">{words(event.body?.kind.case ?? (event.erased ? "erased" : "unknown"))}</span>
        {at !== undefined && <span className="ml-auto text-xs text-muted">{clock(at)}</span>}
      </button>
      {open && (
        <div className="flex flex-col gap-2 py-2 lg:pl-7">
          <Copyable text={grpcurl(feed.runId, event.seq)} />
          <Pre text={toJsonString(RunEventSchema, event, { prettySpaces: 2 })} />
        </div>
      )}
    </li>
  );
}

function grpcurl(runId: string, seq: bigint): string {
  const request = `{"run_id":"${runId}","after_seq":${seq - 1n},"page_size":1}`;
  return `grpcurl -plaintext -H "authorization: Bearer $TOKEN" -d '${request}' ${location.host} skyagent.run.v1.RunService/ListEvents`;
}
