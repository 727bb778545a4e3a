import { type FormEvent, useId } from "react";
import { keepToken } from "../lib/session";

/** Asks who it is, once the gateway said that it does not know. */
export function SignIn({ onDone }: { onDone: () => void }) {
  const id = useId();
  const submit = (event: FormEvent<HTMLFormElement>) => {
    event.preventDefault();
    const token = String(new FormData(event.currentTarget).get("token") ?? "").trim();
    if (!token) return;
    keepToken(token);
    onDone();
  };
  return (
    <form
      onSubmit={submit}
      className="m-auto flex w-full max-w-md flex-col gap-3 rounded-xl border border-line bg-panel p-6"
    >
      <h2 className="text-lg font-semibold">This mesh wants to know you</h2>
      <p className="text-muted">
        Its token is in the file <code className="font-mono text-xs text-text">token</code> of the data directory. It
        stays in this browser and goes to this gateway alone.
      </p>
      <label htmlFor={id} className="label">
        Token
      </label>
      <input
        id={id}
        name="token"
        type="password"
        autoComplete="off"
        required
        className="rounded-md border border-line bg-bg px-3 py-2 font-mono text-xs"
      />
      <button type="submit" className="rounded-md bg-accent px-3 py-2 font-medium text-bg hover:opacity-90">
        Sign in
      </button>
    </form>
  );
}
