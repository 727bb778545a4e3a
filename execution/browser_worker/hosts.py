"""Which addresses a mission may reach. The egress proxy is the wall; this is the sign on the door, with a reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

_SCHEMES: Final = frozenset({"http", "https"})
#: What a page may show in a frame without any network; never an address to navigate to.
_LOCAL: Final = r"about:|data:|blob:"


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts as an assignment names them: "example.com", "*.example.com" (names below), "127.0.0.1:8000" (one port)."""

    patterns: tuple[str, ...]

    def refusal(self, url: str) -> str:
        """Why this address may not be opened; empty when it may."""
        if url == "about:blank":
            return ""
        parts = _split(url)
        if parts is None or not parts.scheme:
            return f"{url!r} is not an absolute address; give one that begins with http:// or https://"
        if parts.scheme not in _SCHEMES:
            return f"addresses of scheme {parts.scheme!r} are never opened, only http, https and about:blank: {url!r}"
        if not parts.hostname:
            return f"{url!r} names no host"
        if any(_host_matches(pattern, parts) for pattern in self.patterns):
            return ""
        allowed = ", ".join(self.patterns) or "none"
        return f"host {parts.hostname!r} is not among the hosts that this mission may reach ({allowed})"

    def outside(self) -> re.Pattern[str]:
        """Matches every address that may not be requested, also by a page itself (WebSockets included)."""
        hosts = "|".join(_host_regex(pattern) for pattern in self.patterns) or "(?!)"
        return re.compile(rf"^(?!{_LOCAL}|(?:https?|wss?)://(?:{hosts})(?:[/?#]|$))", re.IGNORECASE)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port else None
    except ValueError:
        return None


def _host_matches(pattern: str, parts: SplitResult) -> bool:
    host, _, port = pattern.lower().partition(":")
    if port and port != str(parts.port or {"http": 80, "https": 443}[parts.scheme]):
        return False
    name = (parts.hostname or "").lower()
    return name.endswith(host[1:]) and name != host[2:] if host.startswith("*.") else name == host


def _host_regex(pattern: str) -> str:
    host, _, port = pattern.lower().partition(":")
    # A user name before the host ("http://good@evil") never matches: "@" is not in the expression.
    name = rf"(?:[a-z0-9_-]+\.)+{re.escape(host[2:])}" if host.startswith("*.") else re.escape(host)
    return name + (rf":{port}" if port and port not in {"80", "443"} else rf"(?::{port})?" if port else r"(?::\d+)?")
