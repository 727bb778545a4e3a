// Small pictures for states, drawn in the colour of the text around them; words stand beside or in their title.
import type { ReactNode } from "react";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";

function Svg({ children, className = "" }: { children: ReactNode; className?: string }) {
  return (
    <svg
      viewBox="0 0 16 16"
      className={`size-4 shrink-0 ${className}`}
      fill="none"
      stroke="currentColor"
      strokeWidth="1.6"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {children}
    </svg>
  );
}

export const STATE_WORDS: Readonly<Record<NodeState, string>> = {
  [NodeState.UNSPECIFIED]: "not begun",
  [NodeState.PENDING]: "not begun",
  [NodeState.RUNNING]: "running",
  [NodeState.CHECKING]: "being checked",
  [NodeState.WAITING]: "waits for a person",
  [NodeState.UNCERTAIN]: "uncertain",
  [NodeState.SUCCEEDED]: "succeeded",
  [NodeState.FAILED]: "failed",
  [NodeState.SKIPPED]: "skipped",
  [NodeState.DENIED]: "denied",
};

export const STATE_COLOURS: Readonly<Record<NodeState, string>> = {
  [NodeState.UNSPECIFIED]: "text-muted",
  [NodeState.PENDING]: "text-muted",
  [NodeState.RUNNING]: "text-accent",
  [NodeState.CHECKING]: "text-accent",
  [NodeState.WAITING]: "text-warn",
  [NodeState.UNCERTAIN]: "text-odd",
  [NodeState.SUCCEEDED]: "text-ok",
  [NodeState.FAILED]: "text-bad",
  [NodeState.SKIPPED]: "text-muted",
  [NodeState.DENIED]: "text-bad",
};

const PICTURES: Readonly<Record<NodeState, ReactNode>> = {
  [NodeState.UNSPECIFIED]: <circle cx="8" cy="8" r="5.5" strokeDasharray="1.5 3" />,
  [NodeState.PENDING]: <circle cx="8" cy="8" r="5.5" strokeDasharray="1.5 3" />,
  [NodeState.RUNNING]: (
    <>
      <circle cx="8" cy="8" r="5.5" opacity="0.35" />
      <path d="M8 2.5A5.5 5.5 0 0 1 13.5 8" />
    </>
  ),
  [NodeState.CHECKING]: (
    <>
      <circle cx="7" cy="7" r="4" />
      <path d="m10 10 3.5 3.5" />
    </>
  ),
  [NodeState.WAITING]: (
    <>
      <circle cx="8" cy="5" r="2.5" />
      <path d="M3 13.5c.6-3 2.5-4.5 5-4.5s4.4 1.5 5 4.5" />
    </>
  ),
  [NodeState.UNCERTAIN]: (
    <>
      <path d="M5.5 6a2.5 2.5 0 1 1 3.6 2.2c-.7.4-1.1.9-1.1 1.8" />
      <path d="M8 13h.01" />
    </>
  ),
  [NodeState.SUCCEEDED]: <path d="m3 8.5 3.3 3.5L13 4.5" />,
  [NodeState.FAILED]: <path d="m4 4 8 8M12 4l-8 8" />,
  [NodeState.SKIPPED]: <path d="M4 8h8" />,
  [NodeState.DENIED]: (
    <>
      <circle cx="8" cy="8" r="5.5" />
      <path d="m4.2 4.2 7.6 7.6" />
    </>
  ),
};

export function StateIcon({ state }: { state: NodeState }) {
  return (
    <span className={`inline-flex ${STATE_COLOURS[state]}`} title={STATE_WORDS[state]}>
      <Svg className={state === NodeState.RUNNING ? "turn" : ""}>{PICTURES[state]}</Svg>
      <span className="sr-only">{STATE_WORDS[state]}</span>
    </span>
  );
}

export function Chevron({ open }: { open: boolean }) {
  return (
    <Svg className={`transition-transform ${open ? "rotate-90" : ""}`}>
      <path d="m6 4 4 4-4 4" />
    </Svg>
  );
}

export function ShieldIcon() {
  return (
    <Svg>
      <path d="M8 1.8 13 3.6v4c0 3.2-2 5.4-5 6.6-3-1.2-5-3.4-5-6.6v-4z" />
      <path d="m5.8 7.8 1.6 1.7 2.9-3.2" />
    </Svg>
  );
}

export function AgainIcon() {
  return (
    <Svg>
      <path d="M13 8a5 5 0 1 1-1.5-3.6M13 2v3h-3" />
    </Svg>
  );
}
