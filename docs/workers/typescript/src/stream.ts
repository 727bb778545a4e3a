// grpc-js speaks HTTP/2, the generated messages know their bytes; this joins the two, and numbers the frames.
import {
  create,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type ClientDuplexStream, Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import type { BlobRef } from "../gen/skyagent/common/v1/blob_pb.js";
import {
  type ControlRequest,
  ControlRequestSchema,
  type ControlResponse,
  type Hello,
  PutBlobRequestSchema,
  PutBlobResponseSchema,
  WorkerService,
} from "../gen/skyagent/execution/v1/worker_service_pb.js";

export type Frame = NonNullable<MessageInitShape<typeof ControlRequestSchema>["frame"]>;

/** How a stream ended: in order, or why not. `final` means that dialling again cannot help. */
export interface End {
  readonly message: string;
  readonly inOrder: boolean;
  readonly final: boolean;
}

const FINAL = [status.FAILED_PRECONDITION, status.INVALID_ARGUMENT, status.PERMISSION_DENIED, status.UNIMPLEMENTED];
const PIECE = 256 * 1024;
const OPTIONS = {
  "grpc.keepalive_time_ms": 20_000,
  "grpc.keepalive_timeout_ms": 10_000,
  "grpc.use_local_subchannel_pool": 1,
};

/** One Control call from Hello to its end. */
export class Stream {
  readonly ended: Promise<End>;
  readonly #client: Client;
  readonly #metadata: Metadata;
  readonly #call: ClientDuplexStream<ControlRequest, ControlResponse>;
  #said = 0n;
  #applied = 0n;
  #over = false;
  #error: ServiceError | undefined;

  constructor(address: string, token: string, apply: (frame: ControlResponse) => void) {
    this.#client = new Client(address, credentials.createInsecure(), OPTIONS);
    this.#metadata = new Metadata();
    this.#metadata.set("authorization", `Bearer ${token}`);
    const { path, serialize, deserialize } = wired(WorkerService.method.control);
    this.#call = this.#client.makeBidiStreamRequest(path, serialize, deserialize, this.#metadata);
    this.#call.on("data", (message: ControlResponse) => this.#hear(message, apply));
    this.#call.on("error", (error: ServiceError) => (this.#error ??= error));
    this.ended = new Promise((resolve) => {
      this.#call.on("status", () => {
        this.#over = true;
        this.#client.close();
        setImmediate(() => resolve(endOf(this.#error)));
      });
    });
  }

  greet(hello: Hello): void {
    this.send({ case: "hello", value: hello });
  }

  /** What is lost with the stream is told again on the next, from the journal. */
  send(frame: Frame): void {
    if (this.#over) return;
    this.#said += 1n;
    this.#call.write(create(ControlRequestSchema, { seq: this.#said, ack: this.#applied, frame }));
  }

  /** Nothing more is said; the other side ends the stream. */
  finish(): void {
    if (!this.#over) this.#call.end();
  }

  cut(): void {
    this.#call.cancel();
  }

  /** Stores bytes over there, or finds them there. */
  putBlob(ref: BlobRef, data: Uint8Array): Promise<void> {
    const { path, serialize } = wired(WorkerService.method.putBlob);
    const deserialize = (bytes: Buffer) => fromBinary(PutBlobResponseSchema, bytes);
    return new Promise((resolve, reject) => {
      const call = this.#client.makeClientStreamRequest(
        path,
        serialize,
        deserialize,
        this.#metadata,
        { deadline: Date.now() + 60_000 },
        (error) => (error ? reject(error) : resolve()),
      );
      call.on("error", () => {}); // told to the callback, too
      call.write(create(PutBlobRequestSchema, { ref }));
      for (let at = 0; at < data.length; at += PIECE) {
        call.write(create(PutBlobRequestSchema, { data: data.subarray(at, at + PIECE) }));
      }
      call.end();
    });
  }

  #hear(message: ControlResponse, apply: (frame: ControlResponse) => void): void {
    for (const frame of [message, ...message.more]) {
      if (this.#over || frame.seq <= this.#applied) continue;
      if (frame.seq > this.#applied + 1n) return this.cut(); // one got lost: the next stream tells everything again
      apply(frame);
      this.#applied = frame.seq;
    }
  }
}

function endOf(error: ServiceError | undefined): End {
  if (error === undefined) return { message: "ended in order", inOrder: true, final: false };
  const details = error.metadata?.get("grpc-status-details-bin").join() ?? "";
  const final = FINAL.includes(error.code) || details.includes("SUPERSEDED");
  return { message: error.message, inOrder: false, final };
}

function wired<M extends DescMethod>({ parent, name, input, output }: M) {
  return {
    path: `/${parent.typeName}/${name}`,
    serialize: (message: MessageShape<M["input"]>): Buffer => Buffer.from(toBinary(input, message)),
    deserialize: (bytes: Buffer): MessageShape<M["output"]> => fromBinary(output, bytes) as MessageShape<M["output"]>,
  };
}
