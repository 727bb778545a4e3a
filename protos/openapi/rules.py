"""Constraints of contracts (protovalidate rules, field behaviour) as JSON Schema keywords."""

import re
from collections.abc import Callable, Sequence

from google.api import field_behavior_pb2
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from buf.validate import validate_pb2
from openapi.json_value import JsonObject, JsonValue
from openapi.options import behaviours

KEYWORDS = {
    "const": "const",
    "in": "enum",
    "min_len": "minLength",
    "max_len": "maxLength",
    "pattern": "pattern",
    "gt": "exclusiveMinimum",
    "gte": "minimum",
    "lt": "exclusiveMaximum",
    "lte": "maximum",
    "min_items": "minItems",
    "max_items": "maxItems",
    "unique": "uniqueItems",
    "min_pairs": "minProperties",
    "max_pairs": "maxProperties",
}
FORMATS = {
    "email": "email",
    "hostname": "hostname",
    "ip": "ip",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
SIXTY_FOUR_BITS = frozenset({"int64", "uint64", "sint64", "fixed64", "sfixed64"})
# What a rule means where JSON cannot say it: 64-bit integers, durations and times are strings there.
WORDS = {"const": "equal to", "gt": "more than", "gte": "at least", "lt": "less than", "lte": "at most"}


def rules_of(field: FieldDescriptor) -> validate_pb2.FieldRules:
    """The protovalidate rules of a field; empty when it has none."""
    return field.GetOptions().Extensions[validate_pb2.field]


def keywords(rules: validate_pb2.FieldRules, enum: EnumDescriptor | None) -> JsonObject:
    """JSON Schema keywords that say what the rules of one value say."""
    kind = rules.WhichOneof("type")
    if kind is None:
        return {}
    rule: Message = getattr(rules, kind)
    if kind == "enum":
        return enum_keywords(rules.enum, enum)
    if kind == "bytes":
        return bytes_keywords(rules.bytes)
    if kind in SIXTY_FOUR_BITS or kind in {"duration", "timestamp"}:
        return {}
    found: JsonObject = {}
    for field, value in rule.ListFields():
        if field.name in KEYWORDS:
            found[KEYWORDS[field.name]] = plain(value)
        elif field.name in FORMATS:
            found["format"] = FORMATS[field.name]
        elif field.name == "len":
            found |= {"minLength": value, "maxLength": value}
    return found


def enum_keywords(rules: validate_pb2.EnumRules, enum: EnumDescriptor | None) -> JsonObject:
    """An enum is a name in JSON, so its rules name names."""
    if enum is None:
        return {}
    names = {value.number: value.name for value in enum.values}
    found: JsonObject = {}
    if rules.not_in:
        found["not"] = {"enum": [names[number] for number in rules.not_in]}
    allowed = [names[number] for number in getattr(rules, "in")]
    if allowed:
        found["enum"] = [*allowed]
    return found


def bytes_keywords(rules: validate_pb2.BytesRules) -> JsonObject:
    """Bytes are base64 in JSON: four characters for every three bytes."""
    found: JsonObject = {}
    if rules.HasField("min_len"):
        found["minLength"] = (rules.min_len * 4 + 2) // 3
    if rules.HasField("max_len"):
        found["maxLength"] = -(-rules.max_len // 3) * 4
    return found


def sentences(field: FieldDescriptor) -> list[str]:
    """What the rules demand beyond JSON Schema, in words."""
    rules = rules_of(field)
    said = [rule.message or rule.expression for rule in rules.cel]
    kind = rules.WhichOneof("type")
    if kind in SIXTY_FOUR_BITS or kind in {"duration", "timestamp"}:
        bounds: Message = getattr(rules, kind)
        said += [f"{WORDS[rule.name]} {worded(value)}" for rule, value in bounds.ListFields() if rule.name in WORDS]
    return [f"{text[0].upper()}{text[1:].rstrip('.')}." for text in said]


def behaviour(field: FieldDescriptor) -> JsonObject:
    """Who sets the field: the caller, the server, or both."""
    stated = behaviours(field)
    found: JsonObject = {}
    if field_behavior_pb2.OUTPUT_ONLY in stated:
        found["readOnly"] = True
    if field_behavior_pb2.INPUT_ONLY in stated:
        found["writeOnly"] = True
    return found


def is_required(field: FieldDescriptor) -> bool:
    """Whether a message without this field is refused. A rule that no zero value can pass requires the field too."""
    rules = rules_of(field)
    if field_behavior_pb2.REQUIRED in behaviours(field) or rules.required:
        return True
    if field.has_presence or rules.ignore != validate_pb2.IGNORE_UNSPECIFIED:
        return False
    refuses = REFUSES_ZERO.get(rules.WhichOneof("type") or "")
    return refuses is not None and refuses(rules)


def may_be_zero(field: FieldDescriptor) -> bool:
    """Whether the zero value passes although the rules would refuse it."""
    return rules_of(field).ignore == validate_pb2.IGNORE_IF_ZERO_VALUE and not field.has_presence


def string_refuses_zero(rules: validate_pb2.FieldRules) -> bool:
    """Whether the empty string breaks a rule."""
    rule = rules.string
    if rule.min_len or rule.len or rule.WhichOneof("well_known"):
        return True
    return bool(rule.pattern) and re.search(rule.pattern, "") is None


REFUSES_ZERO: dict[str, Callable[[validate_pb2.FieldRules], bool]] = {
    "string": string_refuses_zero,
    "bytes": lambda rules: rules.bytes.min_len > 0,
    "repeated": lambda rules: rules.repeated.min_items > 0,
    "map": lambda rules: rules.map.min_pairs > 0,
    "enum": lambda rules: 0 in rules.enum.not_in,
    "int32": lambda rules: (rules.int32.HasField("gt") and rules.int32.gt >= 0) or rules.int32.gte > 0,
    "int64": lambda rules: (rules.int64.HasField("gt") and rules.int64.gt >= 0) or rules.int64.gte > 0,
    "uint32": lambda rules: rules.uint32.HasField("gt") or rules.uint32.gte > 0,
    "uint64": lambda rules: rules.uint64.HasField("gt") or rules.uint64.gte > 0,
}


def plain(value: str | float | Sequence[str | float]) -> JsonValue:
    """A rule's value as JSON; the list of an `in` becomes an array."""
    return value if isinstance(value, str | int | float) else [*value]


def worded(value: object) -> str:
    """A bound as text; a duration or time by its JSON form."""
    return value.ToJsonString() if isinstance(value, (Duration, Timestamp)) else str(value)
