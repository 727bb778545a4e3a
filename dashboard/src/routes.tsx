// Which address shows what. The whole state of a view stands in its address.
import { createRootRouteWithContext, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";
import { NotFound, Shell } from "./components/Shell";
import type { Client } from "./lib/client";
import { Missions } from "./pages/missions";

export const SHOWS = ["all", "waiting", "active", "succeeded", "failed"] as const;
export type Show = (typeof SHOWS)[number];

export const TABS = ["why", "action", "saw", "events"] as const;
export type Tab = (typeof TABS)[number];

export interface MissionsSearch {
  readonly show?: Show;
}

export interface RunSearch {
  /** The node that is looked at; the one under way when it is not set. */
  readonly step?: string;
  readonly tab?: Tab;
  readonly attempt?: number;
}

const rootRoute = createRootRouteWithContext<{ client: Client }>()({ component: Shell, notFoundComponent: NotFound });

export const missionsRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/",
  component: Missions,
  validateSearch: (search: Record<string, unknown>): MissionsSearch => ({ ...one("show", SHOWS, search) }),
});

export const runRoute = createRoute({
  getParentRoute: () => rootRoute,
  path: "/runs/$runId",
  component: lazyRouteComponent(() => import("./pages/live-run"), "LiveRun"),
  validateSearch: (search: Record<string, unknown>): RunSearch => ({
    ...(typeof search.step === "string" ? { step: search.step } : {}),
    ...(Number.isInteger(search.attempt) ? { attempt: Number(search.attempt) } : {}),
    ...one("tab", TABS, search),
  }),
});

export function createDashboardRouter(client: Client) {
  const routeTree = rootRoute.addChildren([missionsRoute, runRoute]);
  return createRouter({ routeTree, context: { client }, defaultPreload: false });
}

declare module "@tanstack/react-router" {
  interface Register {
    router: ReturnType<typeof createDashboardRouter>;
  }
}

function one<Key extends string, Value extends string>(
  key: Key,
  values: readonly Value[],
  search: Record<string, unknown>,
): { [K in Key]?: Value } {
  const found = values.find((value) => value === search[key]);
  return found ? ({ [key]: found } as { [K in Key]?: Value }) : {};
}
