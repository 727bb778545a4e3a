"""Which rpc services the public port leads to, and their REST paths, read from the descriptor set.

An allowlist on purpose: WorkerService and whatever the services say among themselves are never reachable from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto

from skyagent.common.v1 import options_pb2

PUBLIC = (
    "skyagent.artifact.v1.ArtifactService",
    "skyagent.budget.v1.BudgetService",
    "skyagent.mesh.v1.MeshService",
    "skyagent.mission.v1.MissionService",
    "skyagent.policy.v1.PolicyService",
    "skyagent.run.v1.ApprovalService",
    "skyagent.run.v1.RunService",
    "skyagent.schedule.v1.ScheduleService",
)
# What tools ask before they know any service of ours. Bidirectional or long, so never with a timeout.
TOOLING = (
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call one rpc over REST."""

    verb: str
    template: str

    @property
    def pattern(self) -> str:
        """The path as a regular expression of RE2."""
        pieces = re.split(r"\{[^}]*\}", self.template)
        return "[^/]+".join(re.escape(piece) for piece in pieces)


@dataclass(frozen=True, slots=True)
class Method:
    """One rpc."""

    service: str
    name: str
    request: str
    response: str
    streams: bool
    public: bool
    """Whether anybody may call it."""
    bindings: tuple[Binding, ...]

    @property
    def path(self) -> str:
        """Its path in gRPC."""
        return f"/{self.service}/{self.name}"


def methods(files: FileDescriptorSet, services: tuple[str, ...]) -> tuple[Method, ...]:
    """Every rpc of these services, in the order of the contracts."""
    return tuple(
        _method(name, method) for name, service in _services(files) if name in services for method in service.method
    )


def _services(files: FileDescriptorSet) -> Iterator[tuple[str, ServiceDescriptorProto]]:
    return ((f"{file.package}.{service.name}", service) for file in files.file for service in file.service)


def _method(service: str, method: MethodDescriptorProto) -> Method:
    # The wheel's stubs do not tell what the extension holds.
    rule = cast(http_pb2.HttpRule, method.options.Extensions[annotations_pb2.http])  # pyright: ignore[reportArgumentType]
    rules = [rule, *rule.additional_bindings] if rule.WhichOneof("pattern") else []
    return Method(
        service=service,
        name=method.name,
        request=method.input_type.removeprefix("."),
        response=method.output_type.removeprefix("."),
        streams=method.server_streaming or method.client_streaming,
        public=method.options.Extensions[options_pb2.permission] == options_pb2.PERMISSION_PUBLIC,
        bindings=tuple(_binding(rule) for rule in rules),
    )


def _binding(rule: http_pb2.HttpRule) -> Binding:
    verb = rule.WhichOneof("pattern")
    return Binding((verb or "").upper(), str(getattr(rule, verb or "get")))
