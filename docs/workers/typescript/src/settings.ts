// What a worker is told when it starts: the variables of ../protocol.md.
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";

export interface Settings {
  readonly connect: string; // host:port of the control plane
  readonly workerId: string; // stable for ever: the journal is kept under it
  readonly kind: string; // what missions ask for: "noop" for self_test, "tool" for tools
  readonly tokenFile: string;
  readonly witness: string; // under trial only: who is told of every noop
  readonly folder: string;
  readonly slots: number;
  readonly drainMs: number;
}

export function settingsFrom(env: NodeJS.ProcessEnv): Settings {
  const workerId = env["SKYAGENT_WORKER__ID"] ?? "typescript-1";
  if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(workerId))
    throw new Error(`SKYAGENT_WORKER__ID ${workerId} is no worker's name`);
  const data = env["SKYAGENT_DATA_DIR"] ?? join(homedir(), ".local", "share", "skyagent");
  const folder = join(data, "workers", workerId);
  return {
    connect: env["SKYAGENT_WORKER__CONNECT"] ?? "127.0.0.1:7701",
    workerId,
    kind: env["SKYAGENT_WORKER_KIND"] ?? "noop",
    tokenFile: env["SKYAGENT_WORKER__TOKEN_FILE"] ?? join(folder, "token"),
    witness: env["SKYAGENT_WORKER__WITNESS"] ?? "",
    folder,
    slots: 16,
    drainMs: 20_000,
  };
}

/** The token as the file has it now: it is written anew before it expires. */
export function readToken(settings: Settings): string {
  return readFileSync(settings.tokenFile, "utf8").trim();
}
