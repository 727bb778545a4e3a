// Journals as files: length-delimited events, as Python's `tests/fold/journals.py` writes them.
import { fromBinary } from "@bufbuild/protobuf";
import { BinaryReader } from "@bufbuild/protobuf/wire";
import { type RunEvent, RunEventSchema } from "../gen/skyagent/run/v1/event_pb";

export function readJournal(bytes: Uint8Array): RunEvent[] {
  const reader = new BinaryReader(bytes);
  const events: RunEvent[] = [];
  while (reader.pos < reader.len) events.push(fromBinary(RunEventSchema, reader.bytes()));
  return events;
}
