"""Which addresses a mission may reach: asked here for a reason, held to by the session's egress, whoever connects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
#: What a host without a port stands for, as in the contract; a connection has a port and no scheme.
_OWN_PORTS: Final = tuple(_PORTS.values())
#: What a page may show in a frame without any network; never an address to navigate to.
_LOCAL: Final = r"about:|data:|blob:"
#: Names that nobody can register: whoever resolves them is this machine, or the network that it stands in.
_OWN_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")


@dataclass(frozen=True, slots=True)
class _Pattern:
    host: str
    ports: tuple[int, ...]

    def matches(self, host: str, port: int) -> bool:
        if port not in self.ports:
            return False
        below = host.endswith(self.host[1:]) and host != self.host[2:]
        return below if self.host.startswith("*.") else host == self.host


@dataclass(frozen=True, slots=True)
class HostList:
    """Hosts as a mission names them: "example.com" (80 and 443), "127.0.0.1:8000", "*.example.com" (names below it)."""

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
        fix = "name it so in allowed_hosts if it should be"
        return f"host {_place(host, port)!r} is not among the hosts that this mission may reach ({allowed}); {fix}"

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
    return _Pattern(_canonical(host), (int(port),) if port.isdecimal() else _OWN_PORTS)


def _place(host: str, port: int) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port in _OWN_PORTS else f"{name}:{port}"


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
    host = pattern.host
    name = rf"\[{re.escape(host)}\]" if ":" in host else re.escape(host)
    name = rf"(?:[a-z0-9_-]+\.)+{re.escape(host[2:])}" if host.startswith("*.") else name
    port = f":(?:{'|'.join(map(str, pattern.ports))})"
    return name + (f"(?:{port})?" if pattern.ports[0] in _OWN_PORTS else port)
