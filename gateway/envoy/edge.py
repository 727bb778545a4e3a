"""What the rendered configuration depends on, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from gateway.envoy.services import PUBLIC

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"

_REPOSITORY = Path(__file__).resolve().parents[2]
_IN_WHEEL = Path(__file__).resolve().parents[1] / "served"  # put there by hatch_build.py; a checkout has none
GENERATED = _IN_WHEEL if _IN_WHEEL.is_dir() else _REPOSITORY / "protos" / "gen"
DASHBOARD = _IN_WHEEL / "dashboard" if _IN_WHEEL.is_dir() else _REPOSITORY / "dashboard" / "dist"

# Cookies ignore ports: under its own name below .localhost the dashboard shares none with other local applications.
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]", "skyagent.localhost")


@dataclass(frozen=True, slots=True)
class Address:
    """Where something listens."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """From "127.0.0.1:7701" or "[::1]:7701"."""
        host, _, port = text.rpartition(":")
        return cls(host.strip("[]"), int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Edge:
    """One gateway: where it listens, what it leads to, and the files it reads."""

    listen: Address
    control: Address
    jwks: Path
    index: Path
    assets: Path | None = None
    admin_socket: Path | None = None
    otlp: Address | None = None
    services: tuple[str, ...] = PUBLIC
    descriptors: Path = GENERATED / "descriptors.binpb"
    openapi: Path = GENERATED / "openapi.json"
    max_seconds: int = 3600

    @property
    def contract(self) -> FileDescriptorSet:
        """What the services understand."""
        return FileDescriptorSet.FromString(self.descriptors.read_bytes())

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every Host header that means us. Another name, though it resolves to us, is a DNS rebinding page."""
        return tuple(dict.fromkeys((*LOOPBACK_NAMES, f"{self.listen}".rpartition(":")[0])))

    @property
    def authorities(self) -> tuple[str, ...]:
        """Those hosts with our port, as browsers and clients send them."""
        return tuple(f"{host}:{self.listen.port}" for host in self.hosts)


def typed(name: str, message: str, **fields: Json) -> dict[str, Json]:
    """An extension of Envoy with its typed configuration; `message` is its protobuf name below envoy."""
    return {"name": name, "typed_config": any_of(message, **fields)}


def any_of(message: str, **fields: Json) -> Json:
    """A google.protobuf.Any in Envoy's JSON form."""
    return {"@type": f"type.googleapis.com/envoy.{message}", **fields}


def header(name: str, value: str) -> Json:
    """A header to set on a response, in place of any other of that name."""
    return {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
