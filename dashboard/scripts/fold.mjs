// Folds journals and prints the digest of each state: `node scripts/fold.mjs FILE...`.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { runnerImport } from "vite";

const source = (name) => fileURLToPath(new URL(`../src/run/${name}.ts`, import.meta.url));
const load = async (name) => (await runnerImport(source(name), { configFile: false, logLevel: "error" })).module;

const [{ readJournal }, { fold }, { stateDigest }] = await Promise.all(["journal", "fold", "digest"].map(load));
for (const path of process.argv.slice(2)) {
  console.log(stateDigest(fold(readJournal(await readFile(path)))));
}
