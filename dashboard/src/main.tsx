import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import "./app.css";
import { restClient } from "./lib/client";
import { CallError } from "./lib/errors";
import { takeToken } from "./lib/session";
import { createDashboardRouter } from "./routes";

takeToken();

const queries = new QueryClient({
  defaultOptions: {
    queries: { retry: (failures, error) => failures < 3 && error instanceof CallError && error.passing },
  },
});
const router = createDashboardRouter(restClient());
const root = document.getElementById("root");

if (root) {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={queries}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </StrictMode>,
  );
}
