import { useEffect, useRef } from "react";
import { Button } from "./bits";

const KEYS: readonly (readonly [string, string])[] = [
  ["j  k", "next, previous line"],
  ["Enter", "open what is chosen"],
  ["← →", "fold, open a group"],
  ["g m", "to the missions"],
  ["End", "back to what is happening now"],
  ["1 2 3 4", "Why, Action, Saw, Events"],
  ["/", "filter the plan"],
  ["?", "this list"],
];

export function Help({ open, onClose }: { open: boolean; onClose: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open) dialog.current?.showModal();
    else dialog.current?.close();
  }, [open]);
  return (
    <dialog
      ref={dialog}
      onClose={onClose}
      aria-labelledby="help-title"
      className="m-auto w-80 max-w-[90vw] rounded-xl border border-line bg-panel p-5 text-text shadow-2xl backdrop:bg-black/50"
    >
      <h2 id="help-title" className="mb-3 font-semibold">
        Shortcuts
      </h2>
      <dl className="mb-4 grid grid-cols-[5rem_1fr] gap-y-2">
        {KEYS.map(([key, meaning]) => (
          <div key={key} className="contents">
            <dt className="font-mono text-xs leading-6 text-accent">{key}</dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <Button onClick={onClose}>Close</Button>
    </dialog>
  );
}
