import type { KeyboardEvent, ReactNode } from "react";
import { useId } from "react";

interface Props<Name extends string> {
  readonly label: string;
  readonly names: Readonly<Record<Name, string>>;
  readonly chosen: Name;
  readonly onChoose: (name: Name) => void;
  /** What stands at the end of the line of tabs. */
  readonly aside: ReactNode;
  readonly children: ReactNode;
}

/** Tabs as WAI-ARIA describes them: one stop for the Tab key, arrows go from one to the next. */
export function Tabs<Name extends string>({ label, names, chosen, onChoose, aside, children }: Props<Name>) {
  const id = useId();
  const all = Object.keys(names) as Name[];
  const move = (event: KeyboardEvent<HTMLElement>) => {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    event.stopPropagation();
    const next = all[(all.indexOf(chosen) + by + all.length) % all.length];
    if (!next) return;
    onChoose(next);
    document.getElementById(`${id}${next}`)?.focus();
  };
  return (
    <div>
      <div className="flex items-center gap-3 border-b border-line">
        <div role="tablist" aria-label={label} className="flex gap-1">
          {all.map((name) => (
            <button
              key={name}
              id={`${id}${name}`}
              type="button"
              role="tab"
              aria-selected={name === chosen}
              aria-controls={`${id}panel`}
              tabIndex={name === chosen ? 0 : -1}
              onKeyDown={move}
              onClick={() => onChoose(name)}
              className="-mb-px border-b-2 border-transparent px-3 py-1.5 text-sm font-medium text-muted hover:text-text aria-selected:border-accent aria-selected:text-text"
            >
              {names[name]}
            </button>
          ))}
        </div>
        {aside}
      </div>
      <div id={`${id}panel`} role="tabpanel" aria-labelledby={`${id}${chosen}`} className="flex flex-col gap-5 pt-4">
        {children}
      </div>
    </div>
  );
}
