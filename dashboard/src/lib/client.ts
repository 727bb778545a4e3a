// The calls that the dashboard makes: REST through the gateway, parsed with the generated types.
import { type DescMessage, fromJson, type JsonValue, type MessageShape } from "@bufbuild/protobuf";
import { type RunPhase, RunPhaseSchema } from "../gen/skyagent/run/v1/event_pb";
import {
  type GetRunResponse,
  GetRunResponseSchema,
  type ListRunsResponse,
  ListRunsResponseSchema,
  type WatchRunResponse,
  WatchRunResponseSchema,
} from "../gen/skyagent/run/v1/run_service_pb";
import { errorOf, unreachable } from "./errors";
import { authorization } from "./session";
import { serverSentEvents } from "./sse";

export interface RunsQuery {
  readonly phases: readonly RunPhase[];
  readonly pageToken: string;
}

/** What pages may ask; tests put another one in its place. */
export interface Client {
  listRuns(query: RunsQuery, signal: AbortSignal): Promise<ListRunsResponse>;
  getRun(runId: string, signal: AbortSignal): Promise<GetRunResponse>;
  watchRun(runId: string, afterSeq: bigint, signal: AbortSignal): AsyncIterable<WatchRunResponse>;
  blob(digest: string, signal?: AbortSignal): Promise<Blob>;
}

const PAGE_SIZE = "100";

export function restClient(): Client {
  return {
    listRuns({ phases, pageToken }, signal) {
      const query = new URLSearchParams({ page_size: PAGE_SIZE });
      for (const phase of phases) query.append("phases", RunPhaseSchema.value[phase]?.name ?? String(phase));
      if (pageToken) query.set("page_token", pageToken);
      return message(ListRunsResponseSchema, `/v1/runs?${query}`, signal);
    },
    getRun: (runId, signal) => message(GetRunResponseSchema, `/v1/runs/${encodeURIComponent(runId)}`, signal),
    watchRun,
    blob: async (digest, signal) => (await get(`/v1/blobs/${digest}`, signal)).blob(),
  };
}

async function* watchRun(runId: string, afterSeq: bigint, signal: AbortSignal): AsyncGenerator<WatchRunResponse> {
  const answer = await get(`/v1/runs/${encodeURIComponent(runId)}:watch?after_seq=${afterSeq}`, signal);
  if (!answer.body) return;
  for await (const data of serverSentEvents(answer.body)) yield parse(WatchRunResponseSchema, JSON.parse(data));
}

async function message<Desc extends DescMessage>(
  schema: Desc,
  path: string,
  signal: AbortSignal,
): Promise<MessageShape<Desc>> {
  return parse(schema, (await (await get(path, signal)).json()) as JsonValue);
}

/** Fields of a newer mesh are left out; an event of a kind unknown here is refused by the fold. */
function parse<Desc extends DescMessage>(schema: Desc, json: JsonValue): MessageShape<Desc> {
  return fromJson(schema, json, { ignoreUnknownFields: true });
}

async function get(path: string, signal?: AbortSignal): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { headers: authorization(), ...(signal ? { signal } : {}) });
  } catch (error) {
    signal?.throwIfAborted();
    throw unreachable(error);
  }
  if (!answer.ok) throw await errorOf(answer);
  return answer;
}
