// The small parts that every page is made of.
import { type ReactNode, useState } from "react";
import { RunPhase } from "../gen/skyagent/run/v1/event_pb";
import { CallError } from "../lib/errors";

export type Tone = "ok" | "warn" | "bad" | "odd" | "accent" | "muted";

const TONES: Readonly<Record<Tone, string>> = {
  ok: "text-ok",
  warn: "text-warn",
  bad: "text-bad",
  odd: "text-odd",
  accent: "text-accent",
  muted: "text-muted",
};

export function Badge({ tone, children, title }: { tone: Tone; children: ReactNode; title?: string }) {
  return (
    <span
      title={title}
      className={`${TONES[tone]} inline-flex items-center gap-1 whitespace-nowrap rounded-full border border-current/30 bg-current/8 px-2 text-xs leading-5 font-medium`}
    >
      {children}
    </span>
  );
}

const PHASES: Readonly<Record<RunPhase, readonly [Tone, string]>> = {
  [RunPhase.UNSPECIFIED]: ["muted", "Unknown"],
  [RunPhase.QUEUED]: ["muted", "Queued"],
  [RunPhase.RUNNING]: ["accent", "Running"],
  [RunPhase.PAUSING]: ["warn", "Pausing"],
  [RunPhase.PAUSED]: ["warn", "Paused"],
  [RunPhase.WAITING]: ["warn", "Needs a person"],
  [RunPhase.CANCELLING]: ["warn", "Cancelling"],
  [RunPhase.SUCCEEDED]: ["ok", "Succeeded"],
  [RunPhase.FAILED]: ["bad", "Failed"],
  [RunPhase.CANCELLED]: ["muted", "Cancelled"],
  [RunPhase.BUDGET_EXHAUSTED]: ["warn", "Budget used up"],
};

export function PhaseBadge({ phase }: { phase: RunPhase }) {
  const [tone, text] = PHASES[phase];
  return (
    <Badge tone={tone}>
      {phase === RunPhase.RUNNING && <span className="breathe size-1.5 rounded-full bg-current" />}
      {text}
    </Badge>
  );
}

export function Meter({ value, of, tone = "ok", label }: { value: number; of: number; tone?: Tone; label: string }) {
  const share = of ? Math.min(100, (100 * value) / of) : 0;
  return (
    <div
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={of}
      aria-valuenow={value}
      className={`${TONES[tone]} h-1.5 w-full overflow-hidden rounded-full bg-raised`}
    >
      <div className="h-full rounded-full bg-current transition-[width] duration-300" style={{ width: `${share}%` }} />
    </div>
  );
}

/** A command or id to take along. */
export function Copyable({ text, children }: { text: string; children?: ReactNode }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1_500);
  };
  return (
    <span className="flex min-w-0 items-center gap-2 rounded-md border border-line bg-bg py-1 pr-1 pl-2">
      <code className="min-w-0 grow overflow-x-auto font-mono text-xs whitespace-pre">{children ?? text}</code>
      <button
        type="button"
        onClick={copy}
        className="shrink-0 rounded px-1.5 text-xs text-muted hover:bg-raised hover:text-text"
      >
        <span aria-live="polite">{copied ? "Copied" : "Copy"}</span>
      </button>
    </span>
  );
}

export function Button({ onClick, children }: { onClick: () => void; children: ReactNode }) {
  return (
    <button
      type="button"
      onClick={onClick}
      className="rounded-md border border-line bg-raised px-3 py-1 text-sm font-medium hover:border-muted"
    >
      {children}
    </button>
  );
}

/** What failed, with all that a person needs to find out why. */
export function Failure({ error, retry }: { error: Error; retry: () => void }) {
  const call = error instanceof CallError ? error : undefined;
  return (
    <div
      role="alert"
      className="m-auto flex max-w-xl flex-col items-start gap-3 rounded-lg border border-line bg-panel p-6"
    >
      <h2 className="font-semibold text-bad">{call ? `${call.code} ${call.reason}` : error.name}</h2>
      <p className="break-words">{error.message}</p>
      {call?.requestId && (
        <div className="flex w-full items-center gap-2 text-muted">
          <span className="label shrink-0">Request</span>
          <Copyable text={call.requestId} />
        </div>
      )}
      <Button onClick={retry}>Try again</Button>
    </div>
  );
}

/** A name and what belongs to it. */
export function Field({ name, children }: { name: string; children: ReactNode }) {
  return (
    <div className="grid gap-x-3 sm:grid-cols-[8.5rem_1fr]">
      <dt className="label pt-0.5">{name}</dt>
      <dd className="min-w-0 break-words">{children}</dd>
    </div>
  );
}

export function Section({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section className="flex flex-col gap-2">
      <h3 className="label">{title}</h3>
      {children}
    </section>
  );
}
