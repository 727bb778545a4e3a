// node src/main.ts, with the variables of ../protocol.md.
// Exit codes: 0 it left in order, 1 the control plane refused it, or its journal is in use.
import { Journal } from "./journal.ts";
import { settingsFrom } from "./settings.ts";
import { Worker } from "./worker.ts";

try {
  const settings = settingsFrom(process.env);
  const journal = new Journal(settings.folder);
  const worker = new Worker(settings, journal);
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.on(signal, () => void worker.drain(settings.drainMs));
  await worker.run();
  journal.close();
  process.exit(0); // whatever timer is still running
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
