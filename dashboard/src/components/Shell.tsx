import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import { useState } from "react";
import { useShortcuts } from "../lib/shortcuts";
import { Button } from "./bits";
import { Help } from "./Help";

/** What stands around every page. */
export function Shell() {
  const [help, setHelp] = useState(false);
  const navigate = useNavigate();
  useShortcuts({ "?": () => setHelp(true), "g m": () => void navigate({ to: "/" }) });
  return (
    <div className="flex h-full flex-col">
      <a href="#main" className="sr-only focus:not-sr-only focus:absolute focus:z-10 focus:bg-panel focus:p-2">
        To the content
      </a>
      <header className="flex h-12 shrink-0 items-center gap-6 border-b border-line bg-panel px-4">
        <Link to="/" className="flex items-center gap-2 font-semibold tracking-tight">
          <svg viewBox="0 0 32 32" className="size-6" aria-hidden="true">
            <rect width="32" height="32" rx="8" className="fill-raised" />
            <path
              d="M7 21c3-9 6-9 9-4s6 5 9-6"
              className="fill-none stroke-accent"
              strokeWidth="3.2"
              strokeLinecap="round"
            />
          </svg>
          SkyAgentOS
        </Link>
        <nav aria-label="Pages" className="flex gap-1 text-sm">
          <Link
            to="/"
            className="rounded-md px-2 py-1 text-muted hover:text-text"
            activeProps={{ className: "bg-raised text-text" }}
            activeOptions={{ exact: true, includeSearch: false }}
          >
            Missions
          </Link>
        </nav>
        <button
          type="button"
          onClick={() => setHelp(true)}
          className="ml-auto rounded-md px-2 py-1 text-sm text-muted hover:text-text"
        >
          Shortcuts <kbd className="ml-1 rounded border border-line px-1 font-mono text-xs">?</kbd>
        </button>
      </header>
      <main id="main" className="min-h-0 grow">
        <Outlet />
      </main>
      <Help open={help} onClose={() => setHelp(false)} />
    </div>
  );
}

export function NotFound() {
  const navigate = useNavigate();
  return (
    <div className="flex h-full flex-col items-center justify-center gap-3">
      <p>There is no page at this address.</p>
      <Button onClick={() => void navigate({ to: "/" })}>To the missions</Button>
    </div>
  );
}
