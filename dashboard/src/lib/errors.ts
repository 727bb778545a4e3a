// What a call was answered with when it failed: google.rpc.Status as JSON, from the services and the gateway alike.
import { Code } from "../gen/google/rpc/code_pb";

export class CallError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly reason: string,
    readonly requestId: string,
  ) {
    super(message);
    this.name = "CallError";
  }

  /** Asking again, as it is, may help. */
  get passing(): boolean {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

interface Status {
  readonly code?: number;
  readonly message?: string;
  readonly details?: readonly { readonly reason?: string }[];
}

export async function errorOf(answer: Response): Promise<CallError> {
  const text = await answer.text();
  const status = parsed(text);
  return new CallError(
    status.message || text.slice(0, 300) || `the gateway answered ${answer.status}`,
    answer.status,
    Code[status.code ?? Code.UNKNOWN] ?? "UNKNOWN",
    status.details?.find((detail) => detail.reason)?.reason ?? "",
    answer.headers.get("x-request-id") ?? "",
  );
}

/** No answer at all. */
export function unreachable(error: unknown): CallError {
  const why = error instanceof Error ? error.message : String(error);
  return new CallError(`the gateway does not answer (${why})`, 0, "UNAVAILABLE", "UNREACHABLE", "");
}

function parsed(text: string): Status {
  try {
    return JSON.parse(text) as Status;
  } catch {
    return {};
  }
}
