"""Whether a port is free, and who has it when it is not. Linux: /proc."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from infra.errors import Precondition

LISTENING = "0A"


def require_free(host: str, port: int, setting: str) -> None:
    """Raises Precondition PORT_TAKEN naming who has it and the setting that chooses another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as bad:
            raise Precondition(
                "PORT_TAKEN",
                f"port {port} of {host} cannot be used ({bad.strerror}{_by_whom(port)}); "
                f"end that process, or choose another port with {setting}",
                port=str(port),
            ) from bad


def _by_whom(port: int) -> str:
    holder = owner(port)
    return f", process {holder} ({_name(holder)}) has it" if holder else ""


def owner(port: int) -> int | None:
    """Pid of the process that listens on a port; None when it is another user's or nobody's."""
    inodes = set(_inodes(port))
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(link.readlink()) in inodes:
                return int(link.parts[2])
    return None


def _inodes(port: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        with suppress(OSError):
            for line in table.read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    yield f"socket:[{fields[9]}]"


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "ended"
