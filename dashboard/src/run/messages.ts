import { create, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { type Timestamp, TimestampSchema } from "@bufbuild/protobuf/wkt";
import type { RunEvent } from "../gen/skyagent/run/v1/event_pb";

/** A message that Python copies becomes part of the state, even when the event leaves it unset. */
export function copied<Desc extends DescMessage>(
  schema: Desc,
  message: MessageShape<Desc> | undefined,
): MessageShape<Desc> {
  return message ?? create(schema);
}

export function timeOf(event: RunEvent): Timestamp {
  return copied(TimestampSchema, event.time);
}
