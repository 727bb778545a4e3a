import type { ReactNode } from "react";
import type { AttemptRecord, NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import type { RunFeed } from "../run/feed";
import { nodeId } from "../run/tree";
import { pictureBefore, pictureOf, probesOf } from "../run/view";
import { Picture } from "./Evidence";

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
  if (!own && !attempt.finishedSeq) return <Before feed={feed} attempt={attempt} />;
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

/** What the session shows to an attempt that has not ended, or not even begun. */
function Before({ feed, attempt }: { feed: RunFeed; attempt: AttemptRecord }) {
  const picture = pictureBefore(feed.fold.state, attempt.intendedSeq || feed.fold.state.seq);
  if (!picture) return null;
  const why = attempt.open ? "it is under way" : "it has not been sent";
  return (
    <div className="max-w-3xl">
      <Picture blob={picture} caption={<Caption title="Before the attempt">{why}</Caption>} />
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
