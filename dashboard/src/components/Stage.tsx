import type { ReactNode } from "react";
import type { BlobRef } from "../gen/skyagent/common/v1/blob_pb";
import type { AttemptRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import type { RunFeed } from "../run/feed";
import { nodeId } from "../run/tree";
import { probesOf } from "../run/view";
import { isPicture, Picture } from "./Evidence";

interface Props {
  readonly feed: RunFeed;
  readonly record: NodeRecord;
  readonly attempt: AttemptRecord;
  readonly onChoose: (id: string) => void;
}

/** What the page looked like after the attempt, and beside it what the application showed when it was asked again. */
export function Stage({ feed, record, attempt, onChoose }: Props) {
  const own = pictureOf(attempt);
  const probe = probesOf(feed.fold.plan, attempt).at(-1);
  const asked = probe && pictureOf(probe.attempts.at(-1));
  const seen = feed.outcome(nodeId(record), attempt.attempt)?.result;
  const page = seen?.case === "browser" ? seen.value.observation : undefined;
  if (!own && !asked) return attempt.message ? <p className="text-sm break-words">{attempt.message}</p> : null;
  return (
    <div className={`grid gap-4 ${own && asked ? "xl:grid-cols-2" : "max-w-3xl"}`}>
      {own && <Picture blob={own} caption={<Caption title="After the attempt">{page?.title || page?.url}</Caption>} />}
      {asked && probe && (
        <Picture
          blob={asked}
          caption={
            <Caption title="The application, asked again">
              <button type="button" onClick={() => onChoose(nodeId(probe))} className="text-accent hover:underline">
                the question
              </button>
            </Caption>
          }
        />
      )}
    </div>
  );
}

function Caption({ title, children }: { title: string; children: ReactNode }) {
  return (
    <>
      <span className="font-medium text-text">{title}</span> {children && <>· {children}</>}
    </>
  );
}

function pictureOf(attempt: AttemptRecord | undefined): BlobRef | undefined {
  return attempt?.blobs.find((blob) => blob.role === "screenshot" && isPicture(blob));
}
