"""What is public, and as which paths."""

from __future__ import annotations

import re

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from control.services import ALL
from gateway.envoy.edge import GENERATED
from gateway.envoy.services import PUBLIC, Binding, methods
from infra.mesh_service import DESCRIPTOR as MESH

PRIVATE = {"skyagent.execution.v1.RelayService", "skyagent.execution.v1.WorkerService"}
FILES = FileDescriptorSet.FromString((GENERATED / "descriptors.binpb").read_bytes())


def test_workers_and_what_services_say_among_themselves_are_not_public() -> None:
    assert not [name for name in PUBLIC if "Worker" in name or "Relay" in name or "internal" in name.lower()]


def test_every_public_service_is_in_the_contracts() -> None:
    assert {method.service for method in methods(FILES, PUBLIC)} == set(PUBLIC)


def test_what_is_registered_is_public_or_private_on_purpose() -> None:
    everywhere = {MESH.full_name}
    registered = everywhere | {name.full_name for service in ALL.values() for name in service.descriptors}
    assert registered - set(PUBLIC) == PRIVATE
    assert set(PUBLIC) <= registered


def test_a_variable_of_a_path_stands_for_one_segment() -> None:
    pattern = Binding("GET", "/v1/runs/{run_id}:watch").pattern
    assert re.fullmatch(pattern, "/v1/runs/01J:watch")
    assert not re.fullmatch(pattern, "/v1/runs/a/b:watch")


def test_additional_bindings_are_paths_too() -> None:
    (create,) = [method for method in methods(FILES, PUBLIC) if method.name == "CreateMission"]
    assert [binding.template for binding in create.bindings] == ["/v1/missions", "/missions"]


def test_a_stream_is_known_as_one() -> None:
    streams = {method.name for method in methods(FILES, PUBLIC) if method.streams}
    assert {"WatchRun", "ReadBlob", "Upload", "Download"} <= streams


def test_health_alone_needs_no_token() -> None:
    assert [method.name for method in methods(FILES, PUBLIC) if method.public] == ["GetHealth"]
