// Who the page is: a token that arrives in the address's fragment, which is sent to no server and kept by no history.
const KEY = "skyagent.token";

/** Takes the token out of `#token=…` and out of the address bar. */
export function takeToken(): void {
  const fragment = new URLSearchParams(location.hash.slice(1));
  const token = fragment.get("token");
  if (!token) return;
  fragment.delete("token");
  const rest = fragment.toString();
  history.replaceState(history.state, "", `${location.pathname}${location.search}${rest && `#${rest}`}`);
  keepToken(token);
}

/** This tab speaks by the token, since a cookie would be shared with another mesh on another port of this host. */
export function keepToken(token: string): void {
  sessionStorage.setItem(KEY, token);
  // Tabs opened from here have no token; the gateway's cookie, which scripts cannot read, lets them in.
  fetch("/session", { method: "POST", headers: { "x-skyagent-token": token } }).catch(() => {});
}

export function authorization(): Record<string, string> {
  const token = sessionStorage.getItem(KEY);
  return token ? { authorization: `Bearer ${token}` } : {};
}
