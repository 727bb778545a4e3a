// The digest that names a state: the twin of infra/digest.py.
//
// Python's protobuf (upb) sorts the keys of maps by their bytes, a longer key before its own beginning. JavaScript's
// objects cannot hold every order, so messages that may hold a map are written here, all others by the library.
import { create, type DescField, type DescMessage, type Message, toBinary } from "@bufbuild/protobuf";
import { type ReflectMap, type ReflectMessage, reflect } from "@bufbuild/protobuf/reflect";
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire";
import { blake3 } from "@noble/hashes/blake3.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { type RunState, RunStateSchema } from "../gen/skyagent/run/v1/state_pb";

/** "b3:" and the BLAKE3 of the deterministic serialization. */
export function stateDigest(state: RunState): string {
  return `b3:${bytesToHex(blake3(deterministic(reflect(RunStateSchema, state))))}`;
}

function deterministic(message: ReflectMessage): Uint8Array<ArrayBuffer> {
  if (!holdsMaps(message.desc)) return bytesOf(message.desc, message.message);
  const writer = new BinaryWriter();
  for (const field of message.sortedFields) {
    if (message.isSet(field)) write(writer, message, field);
  }
  return writer.finish();
}

function write(writer: BinaryWriter, message: ReflectMessage, field: DescField): void {
  const embed = (bytes: Uint8Array) => writer.tag(field.number, WireType.LengthDelimited).bytes(bytes);
  if (field.fieldKind === "message") {
    embed(deterministic(message.get(field)));
  } else if (field.fieldKind === "list" && field.listKind === "message") {
    for (const item of message.get(field)) embed(deterministic(item as ReflectMessage));
  } else if (field.fieldKind === "map") {
    for (const entry of sortedEntries(message, field)) embed(entry);
  } else {
    writer.raw(alone(message, field));
  }
}

/** One field as the library writes it. */
function alone(message: ReflectMessage, field: DescField): Uint8Array {
  const bare = reflect(message.desc, create(message.desc));
  bare.set(field, message.get(field));
  return bytesOf(message.desc, bare.message);
}

/** The entries of a map with text for keys, in upb's order. */
function sortedEntries(message: ReflectMessage, field: DescField & { fieldKind: "map" }): Uint8Array[] {
  const map: ReflectMap = message.get(field);
  const encoder = new TextEncoder();
  const entries = [...map].map(([key, value]) => ({ key: encoder.encode(String(key)), value }));
  entries.sort((one, other) => compare(one.key, other.key));
  return entries.map(({ key, value }) => {
    const writer = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(key);
    const text = field.mapKind === "message" ? deterministic(value as ReflectMessage) : encoder.encode(String(value));
    return writer.tag(2, WireType.LengthDelimited).bytes(text).finish();
  });
}

/** The end of a key sorts after every byte. */
function compare(one: Uint8Array, other: Uint8Array): number {
  const shared = Math.min(one.length, other.length);
  for (let index = 0; index < shared; index += 1) {
    const difference = (one[index] ?? 0) - (other[index] ?? 0);
    if (difference) return difference;
  }
  return other.length - one.length;
}

function bytesOf(desc: DescMessage, message: Message): Uint8Array<ArrayBuffer> {
  return toBinary(desc, message);
}

const known = new Map<DescMessage, boolean>();

/** Whether a message of this type may hold a map, however deep. */
function holdsMaps(desc: DescMessage, above: ReadonlySet<DescMessage> = new Set()): boolean {
  const answer = known.get(desc);
  if (answer !== undefined) return answer;
  const path = new Set([...above, desc]);
  const holds = desc.fields.some((field) => {
    if (field.fieldKind === "map") return true;
    return field.message !== undefined && !path.has(field.message) && holdsMaps(field.message, path);
  });
  // Within a cycle "no" is only said of the way that was looked at.
  if (holds || above.size === 0) known.set(desc, holds);
  return holds;
}
