"""The OpenAPI document: valid by itself, and of one mind with protovalidate about what is accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import jsonschema
import protovalidate
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto
from google.protobuf.message import Message
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate as validate_openapi

from gateway.envoy.services import PUBLIC
from skyagent.common.v1 import options_pb2
from skyagent.execution.v1 import action_pb2, browser_pb2
from skyagent.mission.v1 import mission_pb2, mission_service_pb2

GEN = Path(__file__).resolve().parents[2] / "protos" / "gen"
JsonObject = Mapping[str, object]
FORMATS = Draft202012Validator.FORMAT_CHECKER


@pytest.fixture(scope="module")
def document() -> JsonObject:
    return json.loads((GEN / "openapi.json").read_text())


def operations(document: JsonObject) -> Iterator[tuple[str, str, JsonObject]]:
    """Every path, verb and operation."""
    for path, item in cast("Mapping[str, Mapping[str, JsonObject]]", document["paths"]).items():
        for verb, operation in item.items():
            yield path, verb, operation


def methods() -> Iterator[MethodDescriptorProto]:
    """Every rpc of our own contracts."""
    for file in FileDescriptorSet.FromString((GEN / "descriptors.binpb").read_bytes()).file:
        if file.package.startswith("skyagent."):
            for service in file.service:
                yield from service.method


def accepts(document: JsonObject, message: type[Message], value: Mapping[str, object]) -> bool:
    """Whether the message's schema accepts a JSON value."""
    reference = f"#/components/schemas/{message.DESCRIPTOR.full_name}"
    schema = {"$ref": reference, "components": document["components"]}
    try:
        jsonschema.validate(json.loads(json.dumps(value)), schema, Draft202012Validator, format_checker=FORMATS)
    except jsonschema.ValidationError:
        return False
    return True


def passes(message: type[Message], value: Mapping[str, object]) -> bool:
    """Whether the server would let a JSON value through."""
    try:
        protovalidate.validate(json_format.ParseDict(dict(value), message()))
    except protovalidate.ValidationError:
        return False
    return True


def test_it_is_a_valid_openapi_document(document: JsonObject) -> None:
    validate_openapi(document)


def test_it_tells_of_the_services_that_the_gateway_leads_to_and_of_no_other(document: JsonObject) -> None:
    tags = {cast("JsonObject", tag)["name"] for tag in cast("list[object]", document["tags"])}
    assert tags == {name.rpartition(".")[2] for name in PUBLIC}


def test_every_operation_has_an_id_of_its_own(document: JsonObject) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(map(str, ids)))


def test_the_plain_paths_stand_beside_the_versioned_ones(document: JsonObject) -> None:
    found = {(verb, path) for path, verb, _ in operations(document)}
    assert {
        ("post", "/missions"),
        ("post", "/v1/missions"),
        ("get", "/runs/{run_id}"),
        ("get", "/v1/runs/{run_id}"),
        ("post", "/runs/{run_id}/pause"),
        ("post", "/runs/{run_id}/resume"),
    } <= found


def test_every_rpc_names_the_permission_it_needs() -> None:
    for method in methods():
        permission = method.options.Extensions[options_pb2.permission]
        assert permission != options_pb2.PERMISSION_UNSPECIFIED, method.name


def test_every_operation_names_its_permission_and_says_what_it_does(document: JsonObject) -> None:
    for path, verb, operation in operations(document):
        assert operation["x-permission"] not in {"", "UNSPECIFIED"}, (verb, path)
        assert operation["summary"], (verb, path)


def test_a_server_stream_is_offered_as_server_sent_events(document: JsonObject) -> None:
    (watch,) = [operation for path, _, operation in operations(document) if path == "/v1/runs/{run_id}:watch"]
    assert "text/event-stream" in json.dumps(watch["responses"])


def test_what_the_path_names_is_not_asked_for_in_the_body(document: JsonObject) -> None:
    (pause,) = [operation for path, _, operation in operations(document) if path == "/v1/runs/{run_id}:pause"]
    assert "runId" not in json.dumps(pause["requestBody"])
    assert [parameter["name"] for parameter in cast("list[JsonObject]", pause["parameters"])] == ["run_id"]


CLICK = {"browser": {"sessionId": "s", "click": {"target": {"ref": "f0e3:17"}}}}


@pytest.mark.parametrize(
    ("message", "value", "good"),
    [
        (mission_pb2.MissionSpec, {"goal": "Enter the invoices."}, True),
        (mission_pb2.MissionSpec, {}, False),
        (mission_pb2.MissionSpec, {"goal": ""}, False),
        (mission_pb2.MissionSpec, {"goal": "x" * 16385}, False),
        (mission_pb2.MissionSpec, {"goal": "x", "template": "Data Entry"}, False),
        (mission_pb2.MissionSpec, {"goal": "x", "allowedHosts": ["localhost:80"]}, True),
        (mission_pb2.MissionSpec, {"goal": "x", "allowedHosts": [""]}, False),
        (action_pb2.Action, {"effectClass": "EFFECT_CLASS_ONCE", **CLICK}, True),
        (action_pb2.Action, {"effectClass": "EFFECT_CLASS_UNSPECIFIED", **CLICK}, False),
        (action_pb2.Action, CLICK, False),
        (action_pb2.Action, {"effectClass": "EFFECT_CLASS_READ"}, False),
        (browser_pb2.ClickAction, {"target": {"ref": "a"}, "modifiers": ["Alt"]}, True),
        (browser_pb2.ClickAction, {"target": {"ref": "a"}, "modifiers": ["Hyper"]}, False),
        (browser_pb2.ClickAction, {"target": {"ref": "a"}, "count": 4}, False),
        (browser_pb2.ClickAction, {"target": {}}, False),
        (mission_service_pb2.CreateMissionRequest, {"spec": {"goal": "x"}, "requestId": ""}, True),
        (mission_service_pb2.CreateMissionRequest, {"spec": {"goal": "x"}, "requestId": "not a uuid"}, False),
        (mission_service_pb2.CreateMissionRequest, {"requestId": ""}, False),
    ],
)
def test_its_schemas_accept_what_the_server_accepts(
    document: JsonObject, message: type[Message], value: Mapping[str, object], *, good: bool
) -> None:
    assert passes(message, value) is good
    assert accepts(document, message, value) is good
