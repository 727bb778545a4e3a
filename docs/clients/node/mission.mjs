// Lists the templates, gives a mission, pauses and resumes it, and watches it to its end:
//
//   node mission.mjs 127.0.0.1:7700 "$(cat ~/.local/share/skyagent/token)"
//
// Prints one JSON object a line; the exit code is 0 when the mission succeeded.
import { randomUUID } from "node:crypto";
import { credentials, Metadata, status } from "@grpc/grpc-js";
import { MissionService } from "./gen/skyagent/mission/v1/mission_service_pb.js";
import { RunPhase } from "./gen/skyagent/run/v1/event_pb.js";
import { RunService } from "./gen/skyagent/run/v1/run_service_pb.js";
import { call, clientOf } from "./grpc.mjs";

const [address, token] = process.argv.slice(2);
if (!token) {
  console.error("usage: node mission.mjs HOST:PORT TOKEN");
  process.exit(2);
}
const bearer = new Metadata();
bearer.set("authorization", `Bearer ${token}`);
const missions = new (clientOf(MissionService))(address, credentials.createInsecure());
const runs = new (clientOf(RunService))(address, credentials.createInsecure());

const say = (what) => console.log(JSON.stringify(what));

/** Every event of a run once and in order, however often the stream has to be opened again. */
async function* watch(runId) {
  let seen = 0n;
  for (;;) {
    const stream = runs.watchRun({ runId, afterSeq: seen }, bearer);
    try {
      for await (const { item } of stream) {
        if (item.case === "end") return;
        if (item.case !== "event" || item.value.seq <= seen) continue;
        seen = item.value.seq;
        yield item.value;
      }
    } catch (error) {
      if (error.code !== status.UNAVAILABLE) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    } finally {
      stream.cancel();
    }
  }
}

const { templates } = await call(missions, "listTemplates", {}, bearer);
say({ templates: templates.map(({ name, summary }) => ({ name, summary })) });

const spec = { goal: "try the mesh from Node", template: "self_test", inputs: [{ name: "steps", value: "100" }] };
const { runId } = await call(missions, "createMission", { spec, requestId: randomUUID() }, bearer);
say({ runId });

// Once the answer is there, nothing of the run starts any more.
await call(runs, "pauseRun", { runId, reason: "a look around", requestId: randomUUID() }, bearer);

let phase = RunPhase.UNSPECIFIED;
for await (const { seq, body } of watch(runId)) {
  const kind = body?.kind;
  say({ seq: Number(seq), kind: kind?.case });
  if (kind?.case === "commandApplied" && kind.value.command?.kind.case === "pause") {
    await call(runs, "resumeRun", { runId, requestId: randomUUID() }, bearer);
  }
  if (kind?.case === "runFinished") phase = kind.value.phase;
}
const { run } = await call(runs, "getRun", { runId }, bearer);
say({ phase: RunPhase[phase], events: Number(run.seq), summary: run.summary });
missions.close();
runs.close();
process.exitCode = phase === RunPhase.SUCCEEDED ? 0 : 1;
