import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const gateway = { target: process.env.SKYAGENT_GATEWAY ?? "http://127.0.0.1:7700", changeOrigin: true };

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: {
    alias: [
      {
        find: /^.*\/buf\/validate\/validate_pb$/,
        replacement: fileURLToPath(new URL("src/lib/no-rules.ts", import.meta.url)),
      },
    ],
  },
  // The gateway's content policy allows no inline scripts, and it serves files below /assets/ alone.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, chunkSizeWarningLimit: 600 },
  server: { host: "127.0.0.1", proxy: { "/v1": gateway, "/session": gateway } },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
