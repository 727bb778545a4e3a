import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const GATEWAY = "http://127.0.0.1:7700";

export default defineConfig({
  plugins: [react(), tailwindcss()],
  // The gateway's content policy allows no inline scripts and serves files below /assets/ alone.
  build: { assetsInlineLimit: 0, modulePreload: { polyfill: false }, reportCompressedSize: true },
  server: { host: "127.0.0.1", proxy: { "/v1": { target: GATEWAY, changeOrigin: true }, "/session": { target: GATEWAY, changeOrigin: true } } },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
