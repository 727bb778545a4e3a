import { useMemo } from "react";
import { OutcomeStatus } from "../gen/skyagent/execution/v1/action_pb";
import { useNow } from "../lib/clock";
import { clock, duration, millis } from "../lib/format";
import type { RunFeed } from "../run/feed";
import { terminal } from "../run/fold";
import { type Bar, bars, type MarkKind, marks, scale } from "../run/timeline";
import { isProbe } from "../run/tree";
import { wasFalse } from "../run/view";

interface Props {
  readonly feed: RunFeed;
  readonly version: number;
  readonly chosen: string;
  readonly onChoose: (id: string) => void;
}

const MARKS: Readonly<Record<MarkKind, readonly [string, string]>> = {
  asked: ["bg-warn", "a person was asked"],
  answered: ["bg-ok", "a person answered"],
  takeover: ["bg-odd", "the control plane came back"],
  uncertain: ["bg-odd", "nobody could tell whether it happened"],
  paused: ["bg-muted", "paused"],
};

/** The whole run from left to right; the plan beside it says the same in words. */
export function Timeline({ feed, version, chosen, onChoose }: Props) {
  const { state } = feed.fold;
  const ended = terminal(state.phase);
  const now = useNow(1_000, !ended);
  // biome-ignore lint/correctness/useExhaustiveDependencies: the fold changes in place; its version tells when.
  const drawn = useMemo(() => {
    const all = bars(state, now);
    const from = millis(state.createTime) ?? now;
    const to = Math.max(millis(state.updateTime) ?? from, all.at(-1)?.to ?? from, from + 1_000);
    return { all, place: scale(from, to, all), lanes: [...new Set(all.map((bar) => bar.lane))].sort() };
  }, [state, version, now]);
  if (!drawn.all.length) return null;
  return (
    <section aria-label="Timeline" className="hidden shrink-0 border-b border-line px-6 py-2 sm:block">
      {drawn.lanes.map((lane) => (
        <div key={lane} className="flex items-center gap-3">
          <span className="label w-20 shrink-0 truncate">{lane}</span>
          <div className="relative h-6 grow rounded bg-shade">
            {drawn.all
              .filter((bar) => bar.lane === lane)
              .map((bar) => (
                <Piece
                  key={`${bar.id} ${bar.attempt.attempt}`}
                  bar={bar}
                  left={drawn.place(bar.from)}
                  right={drawn.place(bar.to)}
                  chosen={bar.id === chosen}
                  onChoose={onChoose}
                />
              ))}
            {marks(feed.events).map((mark) => (
              <span
                key={mark.seq.toString()}
                title={`${MARKS[mark.kind][1]}, ${clock(mark.at)}`}
                className={`absolute -top-0.5 -bottom-0.5 w-0.5 rounded ${MARKS[mark.kind][0]}`}
                style={{ left: `${100 * drawn.place(mark.at)}%` }}
              />
            ))}
          </div>
        </div>
      ))}
    </section>
  );
}

interface PieceProps {
  readonly bar: Bar;
  readonly left: number;
  readonly right: number;
  readonly chosen: boolean;
  readonly onChoose: (id: string) => void;
}

function Piece({ bar, left, right, chosen, onChoose }: PieceProps) {
  return (
    <button
      type="button"
      tabIndex={-1}
      aria-label={`${bar.title}, attempt ${bar.attempt.attempt}`}
      title={`${bar.title}, ${duration(bar.to - bar.from)}`}
      onClick={() => onChoose(bar.id)}
      className={`absolute min-w-1 rounded-sm hover:brightness-125 ${isProbe(bar.record) ? "inset-y-2" : "inset-y-1"} ${colour(bar)} ${
        chosen ? "ring-2 ring-text" : ""
      }`}
      style={{ left: `${100 * left}%`, width: `calc(${100 * (right - left)}% - 1px)` }}
    />
  );
}

function colour({ attempt, record }: Bar): string {
  if (wasFalse(attempt)) return "bg-warn";
  if (attempt.open) return "bg-accent breathe";
  if (attempt.status === OutcomeStatus.LOST) return "bg-odd";
  if (attempt.withdrawn || !attempt.finishedSeq) return "bg-muted";
  if (attempt.status !== OutcomeStatus.OK) return "bg-bad";
  return isProbe(record) ? "bg-muted/60" : "bg-ok/75";
}
