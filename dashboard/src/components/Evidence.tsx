// Bytes by digest: pictures and texts are shown, everything else is only for saving.
import { useQuery } from "@tanstack/react-query";
import { type ReactNode, useEffect, useState } from "react";
import type { BlobRef } from "../gen/skyagent/common/v1/blob_pb";
import type { Client } from "../lib/client";
import { bytes, shortDigest } from "../lib/format";
import { runRoute } from "../routes";

const PICTURES = new Set(["image/jpeg", "image/png", "image/webp", "image/gif"]);

export function isPicture(blob: BlobRef): boolean {
  return PICTURES.has(blob.mediaType);
}

function useBlob(digest: string) {
  const { client } = runRoute.useRouteContext();
  return useQuery({
    queryKey: ["blob", digest],
    queryFn: ({ signal }) => client.blob(digest, signal),
    staleTime: Number.POSITIVE_INFINITY,
  });
}

export function Picture({ blob, caption }: { blob: BlobRef; caption: ReactNode }) {
  const { data, error } = useBlob(blob.digest);
  const [address, setAddress] = useState("");
  useEffect(() => {
    if (!data) return;
    const made = URL.createObjectURL(data);
    setAddress(made);
    return () => URL.revokeObjectURL(made);
  }, [data]);
  return (
    <figure className="flex min-w-0 flex-col gap-1.5">
      <div className="flex aspect-[16/10] items-center justify-center overflow-hidden rounded-lg border border-line bg-raised">
        {error ? (
          <p className="p-4 text-sm text-bad">{error.message}</p>
        ) : address ? (
          <a href={address} target="_blank" rel="noreferrer" title="Open in full size" className="h-full w-full">
            <img src={address} alt="What the page looked like" className="h-full w-full object-cover object-top" />
          </a>
        ) : (
          <span className="breathe size-full bg-raised" />
        )}
      </div>
      <figcaption className="flex flex-wrap items-baseline justify-between gap-x-3 text-xs text-muted">
        <span>{caption}</span>
        <span className="font-mono" title={blob.digest}>
          {shortDigest(blob.digest)}
        </span>
      </figcaption>
    </figure>
  );
}

export function BlobText({ blob }: { blob: BlobRef }) {
  const { data, error } = useBlob(blob.digest);
  const [text, setText] = useState<string>();
  useEffect(() => {
    void data?.text().then(setText);
  }, [data]);
  if (error) return <p className="text-sm text-bad">{error.message}</p>;
  return <Pre text={text ?? "…"} />;
}

/** Text that is shown as it is, and never as anything else. */
export function Pre({ text }: { text: string }) {
  return (
    <pre
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
      tabIndex={0}
      className="max-h-96 overflow-auto rounded-lg border border-line bg-bg p-3 font-mono text-xs leading-5 break-words whitespace-pre-wrap"
    >
      {text}
    </pre>
  );
}

export function Download({ blob, name }: { blob: BlobRef; name: string }) {
  const { client } = runRoute.useRouteContext();
  const [problem, setProblem] = useState("");
  return (
    <span className="flex items-center gap-2">
      {problem && <span className="text-xs text-bad">{problem}</span>}
      <button
        type="button"
        onClick={() => void save(client, blob.digest, name).catch((error: Error) => setProblem(error.message))}
        className="rounded-md border border-line bg-raised px-2.5 py-0.5 text-xs font-medium hover:border-muted"
      >
        Save <span className="sr-only">{name}</span>
      </button>
    </span>
  );
}

async function save(client: Client, digest: string, name: string): Promise<void> {
  const address = URL.createObjectURL(await client.blob(digest));
  const link = document.createElement("a");
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

export function BlobLine({ blob, name }: { blob: BlobRef; name: string }) {
  return (
    <li className="flex items-center gap-3 py-2">
      <span className="min-w-0 grow">
        <span className="block truncate font-medium">{name}</span>
        <span className="num flex flex-wrap gap-x-3 text-xs text-muted">
          <span>{blob.mediaType}</span>
          <span>{bytes(blob.size)}</span>
          <span className="font-mono" title={blob.digest}>
            {shortDigest(blob.digest)}
          </span>
        </span>
      </span>
      <Download blob={blob} name={name} />
    </li>
  );
}
