import { useEffect, useRef } from "react";
import { NodeState } from "../gen/skyagent/run/v1/event_pb";
import { Holds } from "../gen/skyagent/run/v1/plan_pb";
import type { NodeRecord } from "../gen/skyagent/run/v1/state_pb";
import { plural } from "../lib/format";
import { isProbe, nodeId, planned } from "../run/tree";
import type { Row } from "../run/view";
import { Badge } from "./bits";
import { AgainIcon, Chevron, STATE_WORDS, StateIcon } from "./Icons";

interface Props {
  readonly lines: readonly Row[];
  readonly chosen: string;
  readonly filter: string;
  readonly onFilter: (text: string) => void;
  readonly onChoose: (id: string) => void;
  readonly onToggle: (id: string, open: boolean) => void;
}

/** The plan as it stands; what is done is folded away, what is under way or went wrong is open. */
export function PlanTree({ lines, chosen, filter, onFilter, onChoose, onToggle }: Props) {
  return (
    <>
      <div className="flex shrink-0 items-center gap-3 px-4 pt-3 pb-2">
        <h2 className="label">Plan</h2>
        <input
          id="plan-filter"
          type="search"
          value={filter}
          onChange={(event) => onFilter(event.target.value)}
          onKeyDown={(event) => event.key === "Escape" && event.currentTarget.blur()}
          placeholder="Filter"
          aria-label="Filter the plan"
          className="ml-auto w-40 rounded-md border border-line bg-bg px-2 py-0.5 text-sm placeholder:text-muted"
        />
      </div>
      <div data-scrolls className="min-h-0 grow overflow-y-auto px-2 pb-4">
        <ul aria-label="Steps of the plan">
          {lines.map((row) => (
            <Line
              key={nodeId(row.record)}
              row={row}
              chosen={nodeId(row.record) === chosen}
              onChoose={onChoose}
              onToggle={onToggle}
            />
          ))}
        </ul>
        {!lines.length && (
          <p className="px-2 py-4 text-sm text-muted">{filter ? "Nothing is called so." : "Planning…"}</p>
        )}
      </div>
    </>
  );
}

interface LineProps {
  readonly row: Row;
  readonly chosen: boolean;
  readonly onChoose: (id: string) => void;
  readonly onToggle: (id: string, open: boolean) => void;
}

function Line({ row: { record, depth, open, caught, said }, chosen, onChoose, onToggle }: LineProps) {
  const item = useRef<HTMLLIElement>(null);
  useEffect(() => {
    if (chosen && item.current) reveal(item.current);
  }, [chosen]);
  const id = nodeId(record);
  const { title } = planned(record);
  return (
    <li
      ref={item}
      className={`flex items-center rounded-md ${chosen ? "bg-accent/12" : "hover:bg-shade"}`}
      style={{ paddingLeft: `${depth * 0.95}rem` }}
    >
      {open === undefined ? (
        <span className="w-6 shrink-0" />
      ) : (
        <button
          type="button"
          aria-expanded={open}
          aria-label={`${open ? "Fold" : "Open"} ${title}`}
          onClick={() => onToggle(id, !open)}
          className="flex size-6 shrink-0 items-center justify-center text-muted hover:text-text"
        >
          <Chevron open={open} />
        </button>
      )}
      <button
        type="button"
        aria-current={chosen ? "true" : undefined}
        onClick={() => onChoose(id)}
        className="flex min-w-0 grow items-center gap-2 py-1.5 pr-2 text-left lg:py-1"
      >
        {isProbe(record) ? <Probe record={record} /> : <StateIcon state={record.state} />}
        <span
          className={`min-w-0 truncate ${depth === 0 ? "font-medium" : ""} ${quiet(record) ? "text-muted" : ""} ${
            record.state === NodeState.SKIPPED ? "line-through" : ""
          }`}
        >
          {title}
        </span>
        <Marks record={record} caught={caught} said={said} />
      </button>
    </li>
  );
}

/** Brings a line into sight within the list alone: the page around it stays where the reader left it. */
function reveal(item: HTMLElement): void {
  const list = item.closest<HTMLElement>("[data-scrolls]");
  if (!list) return;
  const above = item.getBoundingClientRect().top - list.getBoundingClientRect().top;
  const below = above + item.offsetHeight - list.clientHeight;
  if (above < 0) list.scrollTop += above;
  else if (below > 0) list.scrollTop += below;
}

function Probe({ record }: { record: NodeRecord }) {
  return (
    <span className="text-muted" title={`a question to the application: ${STATE_WORDS[record.state]}`}>
      <AgainIcon />
    </span>
  );
}

function Marks({ record, caught, said }: Pick<Row, "record" | "caught" | "said">) {
  const attempts = record.attempts.length;
  return (
    <span className="ml-auto flex shrink-0 items-center gap-1">
      {said === Holds.YES && <span className="text-xs text-ok">it is so</span>}
      {said === Holds.NO && <span className="text-xs text-warn">it is not so</span>}
      {caught && (
        <Badge tone="warn" title="A false success was caught">
          False success
        </Badge>
      )}
      {record.state === NodeState.WAITING && <Badge tone="warn">Asks</Badge>}
      {record.state === NodeState.UNCERTAIN && <Badge tone="odd">Uncertain</Badge>}
      {record.restarts > 0 && (
        <span
          className="num inline-flex items-center gap-1 text-xs text-muted"
          title={`started again: ${record.reason}`}
        >
          <AgainIcon /> <span className="sr-only">started again</span>
          {record.restarts > 1 && record.restarts}
        </span>
      )}
      {attempts > 1 && !isProbe(record) && (
        <span className="num text-xs text-muted" title={plural(attempts, "attempt")}>
          ×{attempts}
        </span>
      )}
    </span>
  );
}

function quiet(record: NodeRecord): boolean {
  return isProbe(record) || record.state === NodeState.PENDING || record.state === NodeState.SKIPPED;
}
