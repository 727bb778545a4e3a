import { useEffect, useMemo, useSyncExternalStore } from "react";
import type { Client } from "../lib/client";
import { RunFeed } from "./feed";

/** A run that is followed while this page is in sight; drawn again when something happened. */
export function useRun(client: Client, runId: string): { feed: RunFeed; version: number } {
  const feed = useMemo(() => new RunFeed(runId, client), [client, runId]);
  useEffect(() => {
    const look = () => (document.hidden ? feed.stop() : feed.start());
    look();
    document.addEventListener("visibilitychange", look);
    return () => {
      document.removeEventListener("visibilitychange", look);
      feed.stop();
    };
  }, [feed]);
  const version = useSyncExternalStore(feed.subscribe, feed.version);
  return { feed, version };
}
