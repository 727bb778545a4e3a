"""The comments of contracts, by the full name of what they stand above."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

Comments = Mapping[str, str]


def read_comments(files: FileDescriptorSet) -> Comments:
    """Collects every leading comment; the files must have been compiled with source information."""
    found: dict[str, str] = {}
    for file in files.file:
        for location in file.source_code_info.location:
            name = name_at(file, location.path)
            if name and location.leading_comments:
                found[name] = one_paragraph(location.leading_comments)
    return MappingProxyType(found)


def name_at(file: FileDescriptorProto, path: Sequence[int]) -> str | None:
    """Full name of the declaration at a source path (pairs of field number and index), None for anything smaller."""
    if len(path) < 2 or len(path) % 2:
        return None
    node: Message = file
    names = [file.package]
    for number, index in zip(path[::2], path[1::2], strict=True):
        declared = node.DESCRIPTOR.fields_by_number[number]
        if declared.message_type is None or not declared.is_repeated:
            return None
        node = getattr(node, declared.name)[index]
        if "name" not in node.DESCRIPTOR.fields_by_name:
            return None
        names.append(getattr(node, "name"))  # noqa: B009 - a message of any type
    return ".".join(names)


def one_paragraph(comment: str) -> str:
    """Joins the lines that were only broken for the width of the source; empty lines stay."""
    paragraphs = comment.strip().split("\n\n")
    return "\n\n".join(" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)
