import { useEffect, useRef } from "react";

export type Shortcuts = Readonly<Record<string, () => void>>;

const SEQUENCE_MS = 900;

/** Keys, or two after another ("g m"), while nobody types into a field. */
export function useShortcuts(shortcuts: Shortcuts): void {
  const latest = useRef(shortcuts);
  latest.current = shortcuts;
  useEffect(() => {
    let before = "";
    let at = 0;
    const pressed = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
      const pair = event.timeStamp - at < SEQUENCE_MS ? `${before} ${event.key}` : event.key;
      const action = latest.current[pair] ?? latest.current[event.key];
      [before, at] = [event.key, event.timeStamp];
      if (!action) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  }, []);
}

function typing(target: EventTarget | null): boolean {
  return (
    target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName))
  );
}
