import { useNow } from "../lib/clock";
import { ago, duration } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { Button } from "./bits";

/** How this page stands to the journal: what is shown may be old, and then it says so. */
export function LinkState({ feed }: { feed: RunFeed }) {
  const { link } = feed;
  const now = useNow(1_000, link.kind === "reconnecting");
  if (link.kind === "live") return <Dot colour="text-ok" text="Live" pulse />;
  if (link.kind === "ended") return <Dot colour="text-muted" text="Complete" />;
  if (link.kind === "connecting") return <Dot colour="text-muted" text="Connecting" pulse />;
  if (link.kind === "hidden") return <Dot colour="text-muted" text="Paused while out of sight" />;
  if (link.kind === "failed") {
    return (
      <span className="flex items-center gap-2" title={link.error.message}>
        <Dot colour="text-bad" text={`Stopped: ${link.error.message}`} />
        <Button onClick={() => feed.retry()}>Try again</Button>
      </span>
    );
  }
  const heard = feed.heardAt ? `, last event ${ago(feed.heardAt, now)}` : "";
  return (
    <Dot colour="text-warn" text={`Reconnecting for ${duration(now - link.since)}${heard}`} title={link.why} pulse />
  );
}

function Dot({
  colour,
  text,
  title,
  pulse = false,
}: {
  colour: string;
  text: string;
  title?: string;
  pulse?: boolean;
}) {
  return (
    <span
      role="status"
      title={title}
      className={`num inline-flex min-w-0 items-center gap-1.5 text-xs font-medium ${colour}`}
    >
      <span className={`size-2 shrink-0 rounded-full bg-current ${pulse ? "breathe" : ""}`} />
      <span className="truncate">{text}</span>
    </span>
  );
}
