"""RPCs with an HTTP rule as OpenAPI operations: the same paths, parameters and bodies that Envoy transcodes."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from google.api import http_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from openapi.json_value import JsonObject, JsonValue
from openapi.options import http_rule
from openapi.rules import is_required
from openapi.schemas import Schemas, is_map, message_type
from skyagent.common.v1 import options_pb2

HTTP_BODY = "google.api.HttpBody"
VARIABLE = re.compile(r"\{([^}=]+)(?:=[^}]*)?\}")
BINARY: JsonObject = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
MAX_QUERY_DEPTH = 3


@dataclass(frozen=True, slots=True)
class Binding:
    """One way to call a method over HTTP."""

    method: MethodDescriptor
    verb: str
    template: str
    body: str
    ordinal: int

    @property
    def path(self) -> str:
        """The path with every variable as `{name}`."""
        return VARIABLE.sub(r"{\1}", self.template)

    @property
    def variables(self) -> list[str]:
        """The request's fields that the path names."""
        return VARIABLE.findall(self.template)


def paths(services: Sequence[ServiceDescriptor], schemas: Schemas) -> JsonObject:
    """The path items of all services, by path."""
    found: dict[str, JsonObject] = {}
    for service in services:
        for method in service.methods:
            for binding in bindings(method):
                found.setdefault(binding.path, {})[binding.verb] = operation(binding, schemas)
    return {path: found[path] for path in sorted(found)}


def bindings(method: MethodDescriptor) -> Iterator[Binding]:
    """The method's HTTP rule and its additional bindings; none when it is for gRPC only."""
    rule = http_rule(method)
    if rule is None:
        return
    for ordinal, each in enumerate([rule, *rule.additional_bindings]):
        verb, template = verb_and_template(each)
        yield Binding(method, verb, template, each.body, ordinal)


def verb_and_template(rule: http_pb2.HttpRule) -> tuple[str, str]:
    """The HTTP method in lower case and the path template; ValueError for a rule without either."""
    pattern = rule.WhichOneof("pattern")
    if pattern is None:
        raise ValueError("an HTTP rule names no path")
    if pattern == "custom":
        return rule.custom.kind.lower(), rule.custom.path
    return pattern, str(getattr(rule, pattern))


def operation(binding: Binding, schemas: Schemas) -> JsonObject:
    """One operation: who may call it, what it takes, what it answers."""
    method = binding.method
    summary, _, rest = schemas.comments.get(method.full_name, method.name).partition(". ")
    permission = method.GetOptions().Extensions[options_pb2.permission]
    made: JsonObject = {
        "tags": [method.containing_service.name],
        "operationId": method.name + (f"_{binding.ordinal + 1}" if binding.ordinal else ""),
        "summary": summary.removesuffix("."),
        "x-permission": options_pb2.Permission.Name(permission).removeprefix("PERMISSION_"),
        "responses": {"200": answer(method, schemas), "default": {"$ref": "#/components/responses/Error"}},
    }
    if rest:
        made["description"] = rest
    if parameters := [*path_parameters(binding, schemas), *query_parameters(binding, schemas)]:
        made["parameters"] = [*parameters]
    if binding.body:
        made["requestBody"] = request_body(binding, schemas)
    return made


def path_parameters(binding: Binding, schemas: Schemas) -> Iterator[JsonObject]:
    """A parameter for every variable of the path."""
    for name in binding.variables:
        yield parameter("path", name, field_at(binding.method.input_type, name), schemas) | {"required": True}


def query_parameters(binding: Binding, schemas: Schemas) -> Iterator[JsonObject]:
    """A parameter for every field that is neither in the path nor in the body."""
    if binding.body == "*" or binding.method.input_type.full_name == HTTP_BODY:
        return
    taken = frozenset([*binding.variables, binding.body])
    for name, field in leaves(binding.method.input_type, taken):
        required: JsonObject = {"required": True} if is_required(field) and "." not in name else {}
        yield parameter("query", name, field, schemas) | required


def leaves(message: Descriptor, taken: frozenset[str], prefix: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """The fields that a query string can carry, by dotted JSON name."""
    for field in message.fields:
        if field.name in taken or is_map(field):
            continue
        name = f"{prefix}{field.json_name}"
        if field.message_type is None or field.message_type.full_name.startswith("google.protobuf."):
            yield name, field
        elif not field.is_repeated and name.count(".") < MAX_QUERY_DEPTH:
            yield from leaves(field.message_type, frozenset(), f"{name}.")


def parameter(place: str, name: str, field: FieldDescriptor, schemas: Schemas) -> JsonObject:
    """A parameter; its comment belongs to it rather than to its schema."""
    schema = schemas.field(field)
    description = schema.pop("description", None)
    made: JsonObject = {"name": name, "in": place, "schema": schema}
    return made if description is None else made | {"description": description}


def field_at(message: Descriptor, dotted: str) -> FieldDescriptor:
    """The field at a path such as `mission.mission_id`."""
    first, _, rest = dotted.partition(".")
    field = message.fields_by_name[first]
    return field_at(message_type(field), rest) if rest else field


def request_body(binding: Binding, schemas: Schemas) -> JsonObject:
    """The body: the whole request less what the path says, or the one field that the rule names."""
    request = binding.method.input_type
    schema: JsonValue
    if binding.body != "*":
        schema = schemas.field(field_at(request, binding.body))
    elif binding.variables:
        schema = schemas.message(request, without=frozenset(binding.variables))
    elif request.full_name == HTTP_BODY:
        return {"required": True, "content": BINARY}
    else:
        schema = schemas.reference(request)
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def answer(method: MethodDescriptor, schemas: Schemas) -> JsonObject:
    """The response: JSON, bytes, or an endless series of either."""
    if method.output_type.full_name == HTTP_BODY:
        if method.server_streaming:
            return {"description": "One part after another.", "content": {"multipart/x-mixed-replace": {}}}
        return {"description": "The bytes.", "content": BINARY}
    content: JsonObject = {"schema": schemas.reference(method.output_type)}
    if method.server_streaming:
        said = "Server-sent events, each with one such message as data."
        return {"description": said, "content": {"text/event-stream": content}}
    return {"description": "Done.", "content": {"application/json": content}}
