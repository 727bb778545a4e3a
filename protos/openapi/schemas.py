"""Messages and enums of contracts as JSON Schemas, in the form protobuf's JSON mapping gives them."""

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, OneofDescriptor

from buf.validate import validate_pb2
from openapi.comments import Comments
from openapi.json_value import JsonObject, JsonValue
from openapi.rules import behaviour, is_required, keywords, may_be_zero, rules_of, sentences

# https://protobuf.dev/programming-guides/json/
SCALARS: dict[int, JsonObject] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_SINT32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_SFIXED32: {"type": "integer", "format": "int32"},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_FIXED32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    FieldDescriptor.TYPE_SINT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    FieldDescriptor.TYPE_SFIXED64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    FieldDescriptor.TYPE_UINT64: {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"},
    FieldDescriptor.TYPE_FIXED64: {"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"},
    FieldDescriptor.TYPE_STRING: {"type": "string"},
}
WELL_KNOWN: dict[str, JsonObject] = {
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}, "required": ["@type"]},
    "google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$", "examples": ["1.5s"]},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.FieldMask": {"type": "string"},
    "google.protobuf.ListValue": {"type": "array"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.DoubleValue": {"type": ["number", "null"]},
    "google.protobuf.Int32Value": {"type": ["integer", "null"]},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.UInt32Value": {"type": ["integer", "null"], "minimum": 0},
}


class Schemas:
    """Component schemas, added as they are first referred to."""

    def __init__(self, comments: Comments) -> None:
        self.comments = comments
        self._made: dict[str, JsonObject] = {}

    def components(self) -> JsonObject:
        """Every schema that was referred to, by full name."""
        return dict(sorted(self._made.items()))

    def reference(self, type_: Descriptor | EnumDescriptor) -> JsonObject:
        """A reference to the schema of a message or enum; well-known types stand where they are used."""
        if type_.full_name in WELL_KNOWN:
            return dict(WELL_KNOWN[type_.full_name])
        if type_.full_name not in self._made:
            self._made[type_.full_name] = {}  # Known before it is complete, since messages may hold themselves.
            made = self.enum(type_) if isinstance(type_, EnumDescriptor) else self.message(type_)
            self._made[type_.full_name] = made
        return {"$ref": f"#/components/schemas/{type_.full_name}"}

    def message(self, message: Descriptor, without: frozenset[str] = frozenset()) -> JsonObject:
        """Schema of a message, less the fields that are named elsewhere, as in the path."""
        fields = [field for field in message.fields if field.name not in without]
        schema: JsonObject = {"type": "object"}
        if comment := self.comments.get(message.full_name):
            schema["description"] = comment
        if fields:
            schema["properties"] = {field.json_name: self.field(field) for field in fields}
        if required := [field.json_name for field in fields if is_required(field)]:
            schema["required"] = [*required]
        if choices := [choice(oneof) for oneof in oneofs(message)]:
            schema["allOf"] = [*choices]
        return schema

    def enum(self, enum: EnumDescriptor) -> JsonObject:
        """Schema of an enum: its names, and what each means."""
        scope = enum.full_name
        meanings = [f"- `{value.name}`: {self.comments.get(f'{scope}.{value.name}', '')}" for value in enum.values]
        description = "\n".join([self.comments.get(scope, ""), "", *meanings])
        names: list[JsonValue] = [value.name for value in enum.values]
        return {"type": "string", "description": description, "enum": names}

    def field(self, field: FieldDescriptor) -> JsonObject:
        """Schema of one field with its constraints and its comment."""
        schema = self.map(field) if is_map(field) else self.list(field) if field.is_repeated else self.bounded(field)
        if may_be_zero(field) and "enum" not in schema:
            schema = zero_or(field.default_value, schema)
        schema |= behaviour(field)
        if description := " ".join([self.comments.get(field.full_name, ""), *sentences(field)]).strip():
            schema["description"] = description
        return schema

    def bounded(self, field: FieldDescriptor) -> JsonObject:
        """Schema of a single value with its constraints."""
        return self.value(field) | keywords(rules_of(field), field.enum_type)

    def list(self, field: FieldDescriptor) -> JsonObject:
        """Schema of a repeated field, with the constraints of the whole and of each item."""
        rules = rules_of(field)
        items = self.value(field) | keywords(rules.repeated.items, field.enum_type)
        schema: JsonObject = {"type": "array", "items": items}
        return schema | keywords(rules, None)

    def map(self, field: FieldDescriptor) -> JsonObject:
        """Schema of a map: JSON objects have text keys whatever the key's type."""
        entry = message_type(field)
        rules = rules_of(field)
        value = entry.fields_by_name["value"]
        values = self.value(value) | keywords(rules.map.values, value.enum_type)
        schema: JsonObject = {"type": "object", "additionalProperties": values}
        if keys := keywords(rules.map.keys, None):
            schema["propertyNames"] = keys
        return schema | keywords(rules, None)

    def value(self, field: FieldDescriptor) -> JsonObject:
        """Schema of one value of the field's type, constraints left out."""
        if field.enum_type is not None:
            return self.reference(field.enum_type)
        if field.message_type is not None:
            return self.reference(field.message_type)
        return dict(SCALARS[field.type])


def zero_or(zero: JsonValue, schema: JsonObject) -> JsonObject:
    """Schema of a value that may be left at zero though its other values are bounded."""
    return {"anyOf": [{"const": zero}, schema]}


def message_type(field: FieldDescriptor) -> Descriptor:
    """The message a field holds; TypeError when it holds none."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} holds no message")
    return field.message_type


def is_map(field: FieldDescriptor) -> bool:
    """Whether protobuf made an entry message for this field."""
    return field.is_repeated and field.message_type is not None and field.message_type.GetOptions().map_entry


def oneofs(message: Descriptor) -> Iterator[OneofDescriptor]:
    """The alternatives that the contract states; protobuf makes one for each `optional` field too."""
    return (oneof for oneof in message.oneofs if len(oneof.fields) > 1)


def choice(oneof: OneofDescriptor) -> JsonObject:
    """Exactly one of the fields, or at most one when the contract does not require any."""
    options: list[JsonValue] = [{"required": [field.json_name]} for field in oneof.fields]
    if oneof.GetOptions().Extensions[validate_pb2.oneof].required:
        return {"oneOf": options}
    return {"oneOf": [*options, {"not": {"anyOf": options}}]}
