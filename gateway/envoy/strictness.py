"""Which fields the JSON of a request may have: the part of the contract that strict.lua holds bodies against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorSet

SCRIPT = Path(__file__).with_name("strict.lua")
SCALAR, ANYTHING = "", "*"
# Types whose JSON form is not an object of their fields.
WELL_KNOWN = {
    "google.protobuf.Any": ANYTHING,
    "google.protobuf.ListValue": ANYTHING,
    "google.protobuf.Struct": ANYTHING,
    "google.protobuf.Value": ANYTHING,
    "google.protobuf.Duration": SCALAR,
    "google.protobuf.FieldMask": SCALAR,
    "google.protobuf.Timestamp": SCALAR,
}


def strict_script(files: FileDescriptorSet, requests: Iterable[str]) -> str:
    """The script with the fields of these messages and of all that they hold."""
    known = dict(_messages(files))
    reached: dict[str, dict[str, str]] = {}
    waiting = list(requests)
    while waiting:
        name = waiting.pop()
        if name not in reached and name in known:
            reached[name] = _fields(known[name])
            waiting.extend(reached[name].values())
    return f"local FIELDS = {_table(reached)}\n{SCRIPT.read_text()}"


def _fields(message: DescriptorProto) -> dict[str, str]:
    """Each field by both of its names, with what its value is."""
    maps = {nested.name for nested in message.nested_type if nested.options.map_entry}
    return {
        name: ANYTHING if field.type_name.rpartition(".")[2] in maps else _kind(field)
        for field in message.field
        for name in (field.name, field.json_name)
    }


def _kind(field: FieldDescriptorProto) -> str:
    if field.type != FieldDescriptorProto.TYPE_MESSAGE:
        return SCALAR
    name = field.type_name.removeprefix(".")
    return WELL_KNOWN.get(name, name)


def _messages(files: FileDescriptorSet) -> Iterator[tuple[str, DescriptorProto]]:
    for file in files.file:
        yield from _nested(file.package, file.message_type)


def _nested(prefix: str, messages: Iterable[DescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = f"{prefix}.{message.name}"
        yield name, message
        yield from _nested(name, message.nested_type)


def _table(reached: dict[str, dict[str, str]]) -> str:
    """Lua. Names of protobuf need no escaping."""
    rows = (
        f'["{name}"]={{' + ",".join(f'["{field}"]="{kind}"' for field, kind in fields.items()) + "}"
        for name, fields in sorted(reached.items())
    )
    return "{\n" + ",\n".join(rows) + "\n}"
