"""Which addresses a mission may reach: asked here for a reason, held to by the session's egress, whoever connects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
#: What a page may show in a frame without any network; never an address to navigate to.
_LOCAL: Final = r"about:|data:|blob:"
#: Names that nobody can register: whoever resolves them is this machine, or the network that it stands in.
_OWN_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


@dataclass(frozen=True, slots=True)
class _Pattern:
    host: str
    port: int | None

    def matches(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        below = host.endswith(self.host[1:]) and host != self.host[2:]
        return below if self.host.startswith("*.") else host == self.host


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
        if parts.scheme not in _PORTS:
            return f"addresses of scheme {parts.scheme!r} are never opened, only http, https and about:blank: {url!r}"
        if not parts.hostname:
            return f"{url!r} names no host"
        return self.refusal_of(parts.hostname, parts.port or _PORTS[parts.scheme])

    def refusal_of(self, host: str, port: int) -> str:
        """The same for a connection; an IPv6 address without its brackets."""
        if any(_pattern(text).matches(_canonical(host), port) for text in self.patterns):
            return ""
        allowed = ", ".join(self.patterns) or "none"
        return f"host {host!r} is not among the hosts that this mission may reach ({allowed})"

    def outside(self) -> re.Pattern[str]:
        """Matches every address that may not be requested, also by a page itself (WebSockets included)."""
        hosts = "|".join(_regex(_pattern(text)) for text in self.patterns) or "(?!)"
        return re.compile(rf"^(?!{_LOCAL}|(?:https?|wss?)://(?:{hosts})(?:[/?#]|$))", re.IGNORECASE)


def leads_astray(host: str, address: str) -> bool:
    """Whether a name resolves to where only an address may lead: this machine, the link, nowhere.

    Whoever owns a public name decides what it resolves to, and may decide anew each time (DNS rebinding).
    """
    if _address(host) is not None:
        return False
    found = ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    own = "." not in host or f".{host}".endswith(_OWN_NAMES)
    return found.is_link_local or found.is_unspecified or found.is_multicast or (found.is_loopback and not own)


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        return parts if parts.port is None or parts.port else None
    except ValueError:
        return None


@cache
def _pattern(text: str) -> _Pattern:
    bracketed = re.fullmatch(r"\[([^\]]*)\](?::(\d+))?", text)
    host, _, port = (bracketed[1], "", bracketed[2] or "") if bracketed else text.partition(":")
    return _Pattern(_canonical(host), int(port) if port.isdecimal() else None)


def _canonical(host: str) -> str:
    address = _address(host)
    return host.lower() if address is None else str(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _regex(pattern: _Pattern) -> str:
    # A user name before the host ("http://good@evil") never matches: "@" is not in the expression.
    host, port = pattern.host, pattern.port
    name = rf"\[{re.escape(host)}\]" if ":" in host else re.escape(host)
    name = rf"(?:[a-z0-9_-]+\.)+{re.escape(host[2:])}" if host.startswith("*.") else name
    return name + (r"(?::\d+)?" if port is None else rf"(?::{port})?" if port in _PORTS.values() else f":{port}")
